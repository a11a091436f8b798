//! A large cluster, objects only: what an agent needs to know all of it.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use weft_tests::{Cluster, Metrics, Namespace, cluster_story, eventually};

use crate::agent::{self, Agent};

const NAMESPACES: u32 = 100;
const SERVICES: u32 = 5_000;
const PODS: u32 = 20_000;
/// Nodes that are not there.
const NODES: u32 = 200;
/// Objects of a kind are in namespaces of this name and a number.
const PREFIX: &str = "s70-scale";
/// Addresses of Services, in groups of so many.
const GROUP: u32 = 250;

/// What a Service, a pod and a slice of this cluster look like, as the API server wrote them.
const OBJECTS: &str = include_str!("scale.yaml");

/// Objects for which nobody but the API server and those who watch it has work to do.
struct Crowd<'a> {
    cluster: &'a Cluster,
    /// The first three numbers of Services' addresses.
    groups: Vec<String>,
}

impl<'a> Crowd<'a> {
    /// Makes it, after a pattern in `namespace`. Nobody deletes pods of nodes that are not there meanwhile, or writes
    /// slices of his own.
    fn arrive(cluster: &'a Cluster, namespace: &Namespace) -> Result<Self> {
        let crowd = Self { cluster, groups: free_groups(cluster)? };
        cluster.stop_controllers()?;
        namespace.apply(OBJECTS)?;
        let status = include_str!("scale-status.json");
        namespace.kubectl(&["patch", "pod", "pod", "--subresource=status", "--patch", status])?;
        let service = namespace.get(&["service", "service"])?;
        let [pod, slice] = [namespace.get(&["pod", "pod"])?, namespace.get(&["endpointslice", "slice"])?];
        let ip = cluster.get(&["ipaddress", text(&service, "/spec/clusterIP")?])?;
        let parent = cluster.get(&["namespace", namespace.name()])?;
        for (object, kind) in [(&service, "service"), (&pod, "pod"), (&slice, "endpointslice")] {
            ensure!(object.to_string().len() > 500, "hardly a {kind}: {object}");
        }
        namespace.kubectl(&["delete", "--now", "service/service", "endpointslice/slice"])?;
        namespace.kubectl(&["delete", "--force", "pod/pod"])?;

        let etcd = cluster.etcd();
        etcd.put((0..NAMESPACES).map(|number| {
            let name = format!("{PREFIX}-{number}");
            (format!("/registry/namespaces/{name}"), renamed(&parent, &name, None))
        }))?;
        etcd.put((0..SERVICES).map(|number| crowd.service_ip(&ip, number)))?;
        etcd.put((0..SERVICES).map(|number| crowd.service(&service, number)))?;
        etcd.put((0..SERVICES).map(|number| slice_of(&slice, number)))?;
        etcd.put((0..PODS).map(|number| pod_of(&pod, number)))?;
        Ok(crowd)
    }

    fn address(&self, number: u32) -> String {
        format!("{}{}", self.groups[(number / GROUP) as usize], number % GROUP + 1)
    }

    /// That an address is taken: the API server would enter what is missing, one by one.
    fn service_ip(&self, like: &Value, number: u32) -> (String, Value) {
        let address = self.address(number);
        let mut object = renamed(like, &address, None);
        object["spec"]["parentRef"]["namespace"] = namespace_of(number).into();
        object["spec"]["parentRef"]["name"] = service_name(number).into();
        (format!("/registry/ipaddresses/{address}"), object)
    }

    fn service(&self, like: &Value, number: u32) -> (String, Value) {
        let (name, namespace) = (service_name(number), namespace_of(number));
        let mut object = renamed(like, &name, Some(&namespace));
        let address = self.address(number);
        object["spec"]["clusterIP"] = address.as_str().into();
        object["spec"]["clusterIPs"] = json!([address]);
        object["spec"]["selector"] = json!({"app": name});
        (format!("/registry/services/specs/{namespace}/{name}"), object)
    }
}

impl Drop for Crowd<'_> {
    fn drop(&mut self) {
        let etcd = self.cluster.etcd();
        for place in ["pods", "endpointslices", "services/specs"] {
            etcd.delete_all(&format!("/registry/{place}/{PREFIX}-")).ok();
        }
        for group in &self.groups {
            etcd.delete_all(&format!("/registry/ipaddresses/{group}")).ok();
        }
        etcd.delete_all(&format!("/registry/namespaces/{PREFIX}-")).ok();
        self.cluster.start_controllers().ok();
    }
}

/// Groups of addresses in which no Service is.
fn free_groups(cluster: &Cluster) -> Result<Vec<String>> {
    let services = cluster.get(&["services", "--all-namespaces"])?.to_string();
    let groups = (64..).map(|group| format!("10.97.{group}."));
    Ok(groups
        .filter(|group| !services.contains(&format!("\"{group}")))
        .take(SERVICES.div_ceil(GROUP) as usize)
        .collect())
}

fn text<'a>(object: &'a Value, path: &str) -> Result<&'a str> {
    object.pointer(path).and_then(Value::as_str).with_context(|| format!("no {path} in {object}"))
}

fn service_name(number: u32) -> String {
    format!("service-{number}")
}

fn namespace_of(service: u32) -> String {
    format!("{PREFIX}-{}", service % NAMESPACES)
}

fn pod_address(number: u32) -> String {
    Ipv4Addr::from_bits(u32::from_be_bytes([100, 64, 0, 0]) + number).to_string()
}

/// Another object like this one, as it is in etcd.
fn renamed(like: &Value, name: &str, namespace: Option<&str>) -> Value {
    let mut object = like.clone();
    let meta = &mut object["metadata"];
    meta["name"] = name.into();
    if let Some(namespace) = namespace {
        meta["namespace"] = namespace.into();
    }
    // The version is etcd's own.
    meta.as_object_mut().map(|meta| meta.remove("resourceVersion"));
    let digits = name.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    meta["uid"] = format!("70000000-0000-4000-8000-{:012x}", digits & 0xffff_ffff_ffff).into();
    object
}

fn slice_of(like: &Value, service: u32) -> (String, Value) {
    let namespace = namespace_of(service);
    let name = format!("{}-x7k2p", service_name(service));
    let mut object = renamed(like, &name, Some(&namespace));
    object["metadata"]["labels"]["kubernetes.io/service-name"] = service_name(service).into();
    let endpoint = object["endpoints"][0].clone();
    let endpoints = (0..PODS / SERVICES).map(|copy| {
        let number = service + copy * SERVICES;
        let mut endpoint = endpoint.clone();
        endpoint["addresses"] = json!([pod_address(number)]);
        endpoint["nodeName"] = format!("far-{}", number % NODES).into();
        endpoint["targetRef"]["name"] = format!("pod-{number}").into();
        endpoint["targetRef"]["namespace"] = namespace.as_str().into();
        endpoint
    });
    object["endpoints"] = endpoints.collect();
    (format!("/registry/endpointslices/{namespace}/{name}"), object)
}

fn pod_of(like: &Value, number: u32) -> (String, Value) {
    let service = number % SERVICES;
    let (name, namespace) = (format!("pod-{number}"), namespace_of(service));
    let mut object = renamed(like, &name, Some(&namespace));
    object["metadata"]["labels"]["app"] = service_name(service).into();
    object["spec"]["nodeName"] = format!("far-{}", number % NODES).into();
    object["status"]["podIP"] = pod_address(number).into();
    object["status"]["podIPs"] = json!([{"ip": pod_address(number)}]);
    (format!("/registry/pods/{namespace}/{name}"), object)
}

fn memory(metrics: &Metrics) -> f64 {
    metrics.sum("process_resident_memory_bytes", &[])
}

fn seconds(metrics: &Metrics) -> f64 {
    metrics.sum("process_cpu_seconds_total", &[])
}

/// Megabytes that the API server has sent of a kind; of all, where none is named.
fn received(metrics: &Metrics, kind: &[(&str, &str)]) -> f64 {
    metrics.sum("weft_discovery_received_bytes_total", kind) / 1e6
}

/// The certificate authority's replicas, wherever they are.
fn print_controllers(cluster: &Cluster) -> Result<()> {
    for node in ["n1", "n2"] {
        if let Ok(pid) = agent::process(cluster, node, "/weft ca") {
            let bytes = agent::memory(cluster, node, &pid, "VmRSS")?;
            println!("RSS of the controller on {node} {:.0} MB", bytes / 1e6);
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --cluster"]
fn an_agent_knows_a_large_cluster() {
    cluster_story(|cluster| {
        let namespace = cluster.namespace(PREFIX)?;
        let agent = Agent::on(cluster, "n1");
        let before = agent.metrics()?;
        println!("at rest: RSS of the agent {:.0} MB", memory(&before) / 1e6);
        print_controllers(cluster)?;
        let begun = Instant::now();
        let crowd = Crowd::arrive(cluster, &namespace)?;
        let arrived = Instant::now();
        let told = |kind| {
            move |metrics: &Metrics| metrics.count("weft_discovery_received_objects_total", &[("kind", kind)])
        };
        eventually("all of it at the agent", Duration::from_mins(2), || {
            let metrics = agent.metrics()?;
            for (kind, all) in [("Pod", PODS), ("Service", SERVICES), ("EndpointSlice", SERVICES)] {
                let heard = told(kind)(&metrics) - told(kind)(&before);
                ensure!(heard >= all.into(), "{heard} of {all} {kind}s");
            }
            Ok(())
        })?;
        agent.is_current()?;
        let known = Instant::now();
        let after = agent.metrics()?;
        println!(
            "{PODS} Pods, {SERVICES} Services, {SERVICES} EndpointSlices, put within {:.1} s and known {:.1} s later: \
             RSS of the agent {:.0} MB, CPU {:.1} s, received {:.1} MB",
            arrived.duration_since(begun).as_secs_f32(),
            known.duration_since(arrived).as_secs_f32(),
            memory(&after) / 1e6,
            seconds(&after) - seconds(&before),
            received(&after, &[]) - received(&before, &[]),
        );
        print_controllers(cluster)?;

        let ready = agent.starts_anew()?.as_secs_f64();
        let metrics = agent.metrics()?;
        let peak = agent.peak()?;
        println!(
            "a start with all of it there: ready after {ready:.2} s, RSS {:.0} MB (peak {:.0} MB), CPU {:.1} s, \
             received {:.1} MB ({:.1} of Pods, {:.1} of Services, {:.1} of EndpointSlices)",
            memory(&metrics) / 1e6,
            peak / 1e6,
            seconds(&metrics),
            received(&metrics, &[]),
            received(&metrics, &[("kind", "Pod")]),
            received(&metrics, &[("kind", "Service")]),
            received(&metrics, &[("kind", "EndpointSlice")]),
        );
        ensure!(told("Pod")(&metrics) >= PODS.into(), "ready before it knew all pods");
        // Far below the limit in its manifest.
        ensure!(peak < 300e6, "{peak} bytes");

        let begun = Instant::now();
        drop(crowd);
        agent.is_current()?;
        println!(
            "gone within {:.1} s: RSS {:.0} MB",
            begun.elapsed().as_secs_f32(),
            memory(&agent.metrics()?) / 1e6
        );
        Ok(())
    });
}
