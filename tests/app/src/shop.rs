//! The web shop's catalogue and front, and FTGO's consumer service.

use std::sync::Arc;

use anyhow::Result;
use http::{Response, StatusCode};
use serde_json::json;

use crate::http_client::Caller;
use crate::http_server::{Args, answer, full, json as as_json, not_found, serve};

/// Serves the list of items.
pub async fn catalog(args: Args) -> Result<()> {
    serve(&args, |call| async move {
        match call.request.uri().path() {
            "/items" => Ok(as_json(&json!([
                {"id": 1, "color": "amber", "department": "Eyewear", "name": "Elinor Glasses", "price": "282.00"},
                {"id": 2, "color": "cyan", "department": "Clothing", "name": "Atlas Shirt", "price": "127.00"},
                {"id": 3, "color": "teal", "department": "Clothing", "name": "Small Metal Shoes", "price": "232.00"},
                {"id": 4, "color": "red", "department": "Watches", "name": "Red Dragon Watch", "price": "232.00"},
            ]))),
            _ => Ok(not_found()),
        }
    })
    .await
}

/// Serves `/api/catalog` with what the catalogue says.
pub async fn apigateway(args: Args) -> Result<()> {
    let caller = Caller::new();
    serve(&args, move |call| {
        let caller = caller.clone();
        async move {
            if call.request.uri().path() != "/api/catalog" {
                return Ok(not_found());
            }
            match caller.get("http://catalog/items", call.request.headers()).await {
                Ok((status, body)) => Ok(Response::builder()
                    .status(status)
                    .header("content-type", "application/json")
                    .body(full(body))?),
                Err(error) => Ok(answer(StatusCode::BAD_GATEWAY, "text/plain", format!("{error:#}\n"))),
            }
        }
    })
    .await
}

/// Serves consumers, and the health that probes ask for.
pub async fn consumer(args: Args) -> Result<()> {
    let (version, name): (Arc<str>, Arc<str>) = (args.version.as_str().into(), args.name.as_str().into());
    serve(&args, move |call| {
        let (version, name) = (version.clone(), name.clone());
        async move {
            let path = call.request.uri().path();
            match path {
                "/actuator/health" => Ok(as_json(&json!({"status": "UP"}))),
                _ if path.starts_with("/consumers") => Ok(as_json(&json!({
                    "consumerId": 1, "name": {"firstName": "Chris", "lastName": "Richardson"},
                    "servedBy": &*name, "version": &*version,
                }))),
                _ => Ok(not_found()),
            }
        }
    })
    .await
}
