//! Where a token stands in a request: after it was taken out, nobody finds it there.
//!
//! The input's lines are a header's name and prefix, a parameter, a cookie; then a request's target and two headers.
#![no_main]

use http::Request;
use libfuzzer_sys::fuzz_target;
use serde_json::json;
use weft_rules::guard::token::TokenRule;

fuzz_target!(|text: &str| {
    let lines: Vec<&str> = text.splitn(7, '\n').collect();
    let [name, prefix, param, cookie, target, header, cookies] = lines[..] else { return };
    let rule = json!({
        "issuer": "fuzz", "jwks": "{\"keys\":[]}",
        "fromHeaders": [{"name": name, "prefix": prefix}], "fromParams": [param], "fromCookies": [cookie],
    });
    let Ok(rule) = serde_json::from_value(rule) else { return };
    let rule = TokenRule::compile(&rule);
    let request = Request::builder().uri(target).header(name, header).header("cookie", cookies);
    let Ok(request) = request.body(()) else { return };
    let mut head = request.into_parts().0;
    for location in &rule.locations {
        let _ = location.find(&head);
        location.strip(&mut head);
        assert!(location.find(&head).is_empty(), "{location:?}");
    }
});
