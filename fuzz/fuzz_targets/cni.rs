//! The CNI plugin's world. The lines of the input are the runtime's arguments, what is kept of the mesh, and a message between
//! plugin and agent; the rest is a configuration.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;
use weft_fuzz::cni::call::Call;
use weft_fuzz::cni::protocol::{Answer, Pod, Request};
use weft_rules::last_known::{LastKnown, Memory, StartingPod, start};

fuzz_target!(|text: &str| {
    let lines: Vec<&str> = text.splitn(4, '\n').collect();
    let [args, known, message, input] = lines[..] else { return };
    let variable = |name: &str| (name == "CNI_ARGS").then(|| args.to_owned());
    let call = Call { variable: &variable, input: input.as_bytes() };
    assert!(!call.version().is_empty());
    if let Ok(config) = call.config() {
        let pod = call.pod(&config);
        // The agent hears what the plugin says.
        reads_back::<Request>(&serde_json::to_string(&Request::Add(pod.clone())).expect("JSON"));
        let known = serde_json::from_str::<LastKnown>(known);
        let memory = known.as_ref().map_or(Memory::Lost, Memory::Known);
        let Pod { namespace, uid, .. } = &pod;
        let _ = start(memory, StartingPod { namespace, key: &pod.key(), uid });
    }
    reads_back::<Request>(message);
    reads_back::<Answer>(message);
});

/// Says again what was understood: it is understood the same.
fn reads_back<M: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(text: &str) {
    let Ok(message) = serde_json::from_str::<M>(text) else { return };
    let again = serde_json::to_string(&message).expect("JSON");
    assert_eq!(serde_json::from_str::<M>(&again).expect("JSON of weft's own"), message);
}
