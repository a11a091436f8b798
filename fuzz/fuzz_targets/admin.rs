//! Questions to the admin API, in JSON: each is understood as something, and answered twice alike.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use weft_api::admin::{ExplainRequest, HttpTap, TapEvent, TapFilter, TapRecord, TcpTap, WaitApplied};
use weft_rules::explain;
use weft_rules::snapshot::Snapshot;

static SNAPSHOT: LazyLock<Arc<Snapshot>> = LazyLock::new(|| {
    let loaded = weft_api::load::load("mesh.yaml", include_str!("../seeds/mesh.yaml"));
    assert!(loaded.findings().is_empty(), "{:?}", loaded.findings());
    weft_fuzz::compiled(loaded)
});

fuzz_target!(|json: &[u8]| {
    let _ = serde_json::from_slice::<WaitApplied>(json);
    if let Ok(question) = serde_json::from_slice::<ExplainRequest>(json) {
        let answer = || explain::answer(&SNAPSHOT, &question, true).map_err(|error| error.to_string());
        assert_eq!(answer(), answer());
        if let Some(address) = &question.from_address {
            let _ = explain::answer_for_node(&SNAPSHOT, address, &question);
        }
    }
    if let Ok(filter) = serde_json::from_slice::<TapFilter>(json) {
        let again = serde_json::to_string(&filter).expect("JSON");
        assert_eq!(serde_json::from_str::<TapFilter>(&again).expect("JSON of weft's own"), filter);
        let http = HttpTap { path: "/reviews/1?full=true".to_owned(), status: 200, ..HttpTap::default() };
        filter.matches(&TapEvent::Http(TapRecord { detail: http, ..TapRecord::default() }));
        filter.matches(&TapEvent::Tcp(TapRecord { detail: TcpTap::default(), ..TapRecord::default() }));
        assert!(filter.matches(&TapEvent::LeftOut { count: 1 }), "what is left out is always told");
    }
});
