use tempfile::TempDir;

use super::*;

fn result() -> Value {
    json!({
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "cni0"}, {"name": "veth1", "mac": "x", "sandbox": ""}, {"name": "eth0", "sandbox": "/var/run/netns/x"}],
        "ips": [
            {"interface": 2, "address": "10.0.0.7/24", "gateway": "10.0.0.1"},
            {"interface": 1, "address": "192.0.2.1/32"},
            {"address": "fd00::7/64"},
        ],
        "dns": {"x-unknown": [1, 2]},
    })
}

struct Runtime {
    dir: TempDir,
    strict: bool,
}

impl Runtime {
    fn new(strict: bool) -> Self {
        Self { dir: TempDir::new().unwrap(), strict }
    }

    fn call(&self, command: &str, change: impl FnOnce(&mut Value)) -> (Value, bool) {
        let mut config = json!({
            "cniVersion": "1.0.0", "name": "net", "type": "weft-cni", "runDir": self.dir.path(), "strict": self.strict,
            "prevResult": result(),
        });
        change(&mut config);
        let input = config.to_string();
        let variable = |name: &str| {
            let value = match name {
                "CNI_COMMAND" => command,
                "CNI_CONTAINERID" => "c1",
                "CNI_NETNS" => "/proc/self/ns/net",
                "CNI_ARGS" => "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=u1",
                _ => return None,
            };
            Some(value.to_owned())
        };
        let (output, good) = run(&Call { variable: &variable, input: input.as_bytes() });
        let output = if output.is_empty() { Value::Null } else { serde_json::from_str(&output).unwrap() };
        (output, good)
    }

    /// Answers one plugin that wants something and not only hear whether anybody is there, and tells what it asked, and
    /// whether a file came with it.
    fn agent(&self, answer: Answer) -> std::thread::JoinHandle<(Request, bool)> {
        let listener = crate::channel::listen(&self.dir.path().join("cni.sock")).unwrap();
        std::thread::spawn(move || {
            loop {
                let channel = Channel::accept(listener.as_fd()).unwrap();
                let (request, files) = channel.receive(Some(PATIENCE)).unwrap().unwrap();
                let asked = request == Request::Status;
                channel.send(if asked { &Answer::Done } else { &answer }, &[]).unwrap();
                if !asked {
                    return (request, files.len() == 1);
                }
            }
        })
    }
}

#[test]
fn add_tells_the_agent_and_hands_the_result_on_unchanged() {
    let runtime = Runtime::new(true);
    let agent = runtime.agent(Answer::Enrolled);
    let (output, good) = runtime.call("ADD", |_| {});
    assert!(good, "{output}");
    assert_eq!(output, result());
    let pod = Pod {
        namespace: "shop".into(),
        name: "web-0".into(),
        uid: "u1".into(),
        container: "c1".into(),
        addresses: vec!["10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap()],
    };
    assert_eq!(agent.join().unwrap(), (Request::Add(pod), true));
}

#[test]
fn without_an_agent_pods_start_unless_that_is_forbidden() {
    let (output, good) = Runtime::new(false).call("ADD", |_| {});
    assert!(good && output == result(), "{output}");
    let (output, good) = Runtime::new(true).call("ADD", |_| {});
    assert!(!good);
    assert_eq!((&output["code"], &output["cniVersion"]), (&json!(11), &json!("1.0.0")), "{output}");
    assert!(output["msg"].as_str().unwrap().contains("shop/web-0"), "{output}");
    assert!(output["details"].as_str().unwrap().contains("cni.sock"), "{output}");

    // The same while the agent cannot say.
    for strict in [true, false] {
        let runtime = Runtime::new(strict);
        let agent = runtime.agent(Answer::NotYet("unknown".to_owned()));
        assert_eq!(runtime.call("ADD", |_| {}).1, !strict);
        agent.join().unwrap();
    }
}

#[test]
fn del_never_fails() {
    let runtime = Runtime::new(true);
    assert_eq!(runtime.call("DEL", |_| {}), (Value::Null, true));
    assert_eq!(runtime.call("DEL", |config| *config = json!("nonsense")), (Value::Null, true));
    let agent = runtime.agent(Answer::Done);
    assert_eq!(runtime.call("DEL", |config| config["prevResult"] = Value::Null), (Value::Null, true));
    assert!(matches!(agent.join().unwrap(), (Request::Delete(pod), true) if pod.key() == "shop/web-0"));
}

#[test]
fn the_other_commands_do_as_specified() {
    let runtime = Runtime::new(true);
    let (versions, good) = runtime.call("VERSION", |_| {});
    assert!(good && versions["cniVersion"] == "1.0.0", "{versions}");
    assert!(versions["supportedVersions"].as_array().unwrap().contains(&json!("1.1.0")));
    assert_eq!(runtime.call("CHECK", |_| {}), (Value::Null, true));
    assert_eq!(runtime.call("GC", |_| {}), (Value::Null, true));
    assert_eq!(runtime.call("STATUS", |_| {}).0["code"], 50);
    assert_eq!(Runtime::new(false).call("STATUS", |_| {}), (Value::Null, true));
    let agent = runtime.agent(Answer::Done);
    assert_eq!(runtime.call("STATUS", |_| {}), (Value::Null, true));
    assert_eq!(runtime.call("DEL", |_| {}), (Value::Null, true));
    agent.join().unwrap();
}

#[test]
fn without_an_agent_a_pod_of_the_mesh_starts_closed_or_not_at_all() {
    let runtime = Runtime::new(false);
    let path = kept::path(runtime.dir.path());
    let add = |known: &str| {
        std::fs::write(&path, known).unwrap();
        runtime.call("ADD", |config| config["lastKnown"] = json!(path))
    };
    let (output, good) = add(r#"{"version": 1, "known": {"namespaces": {"shop": false}, "pods": {}}}"#);
    assert!(good && output == result(), "{output}");
    let (output, good) = add(r#"{"version": 1, "known": null}"#);
    assert!(good && output == result(), "nothing was ever known: {output}");
    // The network namespace that these tests name is the node's own, which nobody can close.
    for known in [r#"{"version": 1, "known": {"namespaces": {"shop": true}, "pods": {}}}"#, "nonsense"] {
        let (output, good) = add(known);
        assert!(!good && output["code"] == 11, "{output}");
        assert!(output["details"].as_str().unwrap().contains("nor can it start closed"), "{output}");
    }
}

#[test]
fn what_cannot_be_is_refused_by_its_code() {
    let runtime = Runtime::new(false);
    assert_eq!(runtime.call("ADD", |config| config["prevResult"] = Value::Null).0["code"], 7);
    assert_eq!(runtime.call("ADD", |config| config["cniVersion"] = json!("0.1.0")).0["code"], 1);
    assert_eq!(runtime.call("ADD", |config| *config = json!("x")).0["code"], 6);
    assert_eq!(runtime.call("NONSENSE", |_| {}).0["code"], 4);
}
