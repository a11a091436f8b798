//! Bookinfo's page as HTML.

use std::fmt::Write as _;

use serde_json::Value;

const HEAD: &str = r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Bookinfo</title><style>
body{font:16px/1.5 system-ui,sans-serif;margin:0;color:#1f2933;background:#f5f7fa}
header{background:#243b53;color:#fff;padding:1rem 2rem;display:flex;justify-content:space-between}
header a{color:#9fb3c8} main{max-width:60rem;margin:2rem auto;display:grid;grid-template-columns:1fr 1fr;gap:2rem}
h1{grid-column:1/-1;margin:0} section{background:#fff;border-radius:.5rem;padding:1rem 1.5rem;box-shadow:0 1px 3px #0002}
dt{font-weight:600} dd{margin:0 0 .5rem} blockquote{margin:0 0 .25rem;font-style:italic}
.stars{font-size:1.6rem;letter-spacing:.1em} .black{color:#111} .red{color:#d64545} .error{color:#b44d12}
footer{color:#627d98;font-size:.85rem}
</style></head><body>
"#;

/// Renders the page; `None` for a service that did not answer.
pub fn render(user: Option<&str>, details: Option<&Value>, reviews: Option<&Value>) -> String {
    let mut html = String::from(HEAD);
    html.push_str("<header><b>Bookinfo</b><span>");
    match user {
        Some(user) => {
            let _ = write!(html, "signed in as <b>{}</b> · <a href=\"/logout\">sign out</a>", escape(user));
        }
        None => html.push_str("<a href=\"/login?user=jason\">sign in as jason</a>"),
    }
    html.push_str("</span></header>\n<main><h1>The Comedy of Errors</h1>\n");
    html.push_str("<section><h2>Book details</h2>\n");
    match details {
        Some(details) => render_details(&mut html, details),
        None => html.push_str("<p class=\"error\">Error fetching product details!</p>\n"),
    }
    html.push_str("</section>\n<section><h2>Book reviews</h2>\n");
    match reviews {
        Some(reviews) => render_reviews(&mut html, reviews),
        None => html.push_str("<p class=\"error\">Error fetching product reviews!</p>\n"),
    }
    html.push_str("</section></main></body></html>\n");
    html
}

fn render_details(html: &mut String, details: &Value) {
    html.push_str("<dl>");
    for (label, key) in
        [("Author", "author"), ("Year", "year"), ("Pages", "pages"), ("Type", "type"), ("ISBN-10", "ISBN-10")]
    {
        let value = match &details[key] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let _ = write!(html, "<dt>{label}</dt><dd>{}</dd>", escape(&value));
    }
    html.push_str("</dl>\n");
}

fn render_reviews(html: &mut String, reviews: &Value) {
    for review in reviews["reviews"].as_array().into_iter().flatten() {
        let text = review["text"].as_str().unwrap_or_default();
        let reviewer = review["reviewer"].as_str().unwrap_or_default();
        let _ =
            writeln!(html, "<blockquote>{}</blockquote><small>— {}</small>", escape(text), escape(reviewer));
        let rating = &review["rating"];
        if let Some(stars) = rating["stars"].as_u64() {
            let stars = usize::try_from(stars).unwrap_or(0).min(5);
            let colour = rating["color"].as_str().unwrap_or("black");
            let shown = format!("{}{}", "★".repeat(stars), "☆".repeat(5 - stars));
            let _ =
                writeln!(html, "<p class=\"stars {}\" title=\"{stars} of 5\">{shown}</p>", escape(colour));
        } else if let Some(error) = rating["error"].as_str() {
            let _ = writeln!(html, "<p class=\"error\">{}</p>", escape(error));
        }
    }
    let pod = reviews["podname"].as_str().unwrap_or("?");
    let _ = writeln!(html, "<footer>reviews served by <b>{}</b></footer>", escape(pod));
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
