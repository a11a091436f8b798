//! What a successor is told: each line is a message; its first character, how many files come with it.
#![no_main]

use std::fs::File;
use std::os::fd::OwnedFd;

use libfuzzer_sys::fuzz_target;
use weft_fuzz::agent::handover::estate::Estate;
use weft_fuzz::agent::handover::wire::Message;

fuzz_target!(|text: &str| {
    let (mut estate, mut given) = (Estate::default(), 0);
    for line in text.lines() {
        let Some(count) = line.chars().next() else { continue };
        let files = count.to_digit(10).unwrap_or_default();
        let Ok(message) = serde_json::from_str::<Message>(&line[count.len_utf8()..]) else { continue };
        let again = serde_json::to_string(&message).expect("JSON");
        assert_eq!(serde_json::from_str::<Message>(&again).expect("JSON of weft's own"), message);
        given += files as usize;
        match estate.take(message, (0..files).map(|_| file()).collect()) {
            Ok(false) => {}
            Ok(true) | Err(_) => break,
        }
    }
    let listeners: usize = estate.pods.iter().map(|pod| pod.listeners.len()).sum();
    assert!(estate.doors.len() + estate.pods.len() + listeners <= given, "{estate:?}");
    for pod in &estate.pods {
        assert!(pod.listeners.iter().all(|(place, _)| place.cookie == pod.cookie), "{pod:?}");
    }
});

fn file() -> OwnedFd {
    File::open("/dev/null").expect("a file").into()
}
