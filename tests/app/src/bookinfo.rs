//! Bookinfo's four services, in the shapes of the well-known tutorial.

use std::sync::Arc;

use anyhow::Result;
use http::header::{COOKIE, HeaderMap, HeaderValue, LOCATION, SET_COOKIE};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::http_client::Caller;
use crate::http_server::{Args, Body, BoxError, Call, answer, json as as_json, not_found, serve};
use crate::page;

/// Serves the page.
pub async fn productpage(args: Args) -> Result<()> {
    let caller = Caller::new();
    serve(&args, move |call| {
        let caller = caller.clone();
        async move { product_page(&caller, &call).await }
    })
    .await
}

async fn product_page(caller: &Caller, call: &Call) -> Result<Response<Body>, BoxError> {
    let uri = call.request.uri();
    match uri.path() {
        "/" | "/productpage" => {}
        "/health" => return Ok(answer(StatusCode::OK, "text/plain", "ok\n")),
        "/login" => return log_in(uri.query().unwrap_or_default()),
        "/logout" => return log_in(""),
        _ => return Ok(not_found()),
    }
    let mut headers = call.request.headers().clone();
    let user = user_of(&headers);
    match &user {
        Some(user) => headers.insert("end-user", HeaderValue::from_str(user)?),
        None => headers.remove("end-user"),
    };
    let (details, reviews) = tokio::join!(
        caller.get_json("http://details:9080/details/0", &headers),
        caller.get_json("http://reviews:9080/reviews/0", &headers),
    );
    let html = page::render(user.as_deref(), details.as_ref().ok(), reviews.as_ref().ok());
    Ok(answer(StatusCode::OK, "text/html; charset=utf-8", html))
}

/// The user by header, else by the cookie of a log-in.
fn user_of(headers: &HeaderMap) -> Option<String> {
    let by_header = headers.get("end-user").and_then(|value| value.to_str().ok());
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let by_cookie =
        cookies.flat_map(|all| all.split(';')).find_map(|cookie| cookie.trim().strip_prefix("user="));
    let user = by_header.or(by_cookie)?;
    (!user.is_empty()).then(|| user.to_owned())
}

/// Remembers the user in a cookie; nobody's password is asked for.
fn log_in(query: &str) -> Result<Response<Body>, BoxError> {
    let user = query.split('&').find_map(|pair| pair.strip_prefix("user=")).unwrap_or_default();
    let user: String = user.chars().filter(char::is_ascii_alphanumeric).collect();
    let mut response = answer(StatusCode::FOUND, "text/plain", "");
    response.headers_mut().insert(LOCATION, HeaderValue::from_static("/productpage"));
    response.headers_mut().insert(SET_COOKIE, HeaderValue::from_str(&format!("user={user}; Path=/"))?);
    Ok(response)
}

/// Serves a book's details.
pub async fn details(args: Args) -> Result<()> {
    serve(&args, |call| async move {
        if !call.request.uri().path().starts_with("/details/") {
            return Ok(not_found());
        }
        Ok(as_json(&json!({
            "id": 0, "author": "William Shakespeare", "year": 1595, "type": "paperback", "pages": 200,
            "publisher": "PublisherA", "language": "English", "ISBN-10": "1234567890",
        })))
    })
    .await
}

/// Serves reviews: v1 without stars, v2 with black and v3 with red ones.
pub async fn reviews(args: Args) -> Result<()> {
    let caller = Caller::new();
    let colour = match args.version.as_str() {
        "v1" => None,
        "v2" => Some("black"),
        _ => Some("red"),
    };
    let name: Arc<str> = args.name.as_str().into();
    serve(&args, move |call| {
        let (caller, name) = (caller.clone(), name.clone());
        async move {
            if !call.request.uri().path().starts_with("/reviews/") {
                return Ok(not_found());
            }
            let ratings = match colour {
                None => None,
                Some(colour) => {
                    let url = "http://ratings:9080/ratings/0";
                    Some((colour, caller.get_json(url, call.request.headers()).await))
                }
            };
            Ok(as_json(&reviews_body(&name, ratings.as_ref())))
        }
    })
    .await
}

fn reviews_body(pod: &str, ratings: Option<&(&str, Result<Value>)>) -> Value {
    let texts = [
        ("Reviewer1", "An extremely entertaining play by Shakespeare. The slapstick humour is refreshing!"),
        (
            "Reviewer2",
            "Absolutely fun and entertaining. The play lacks thematic depth when compared to others.",
        ),
    ];
    let reviews = texts.map(|(reviewer, text)| {
        let mut review = json!({"reviewer": reviewer, "text": text});
        match ratings {
            None => {}
            Some((colour, Ok(ratings))) => {
                review["rating"] = json!({"stars": ratings["ratings"][reviewer], "color": colour});
            }
            Some((_, Err(_))) => {
                review["rating"] = json!({"error": "Ratings service is currently unavailable"});
            }
        }
        review
    });
    json!({"id": "0", "podname": pod, "reviews": reviews})
}

/// Serves ratings.
pub async fn ratings(args: Args) -> Result<()> {
    serve(&args, |call| async move {
        if !call.request.uri().path().starts_with("/ratings/") {
            return Ok(not_found());
        }
        Ok(as_json(&json!({"id": 0, "ratings": {"Reviewer1": 5, "Reviewer2": 4}})))
    })
    .await
}
