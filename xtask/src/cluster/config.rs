//! The files that a node's programs read. Each is a pure function of the node.

use super::layout::{DNS_SERVICE, DOMAIN, Node, PODS, Shared, kubeconfig, pki};
use crate::image::PAUSE;

/// Where containerd listens, on the node.
pub const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";

/// containerd's. Without `restrict_oom_score_adj` no container starts where root lacks CAP_SYS_RESOURCE.
pub fn containerd() -> String {
    let unused = [
        "io.containerd.snapshotter.v1.aufs",
        "io.containerd.snapshotter.v1.btrfs",
        "io.containerd.snapshotter.v1.devmapper",
        "io.containerd.snapshotter.v1.zfs",
        "io.containerd.internal.v1.opt",
        "io.containerd.internal.v1.tracing",
        "io.containerd.tracing.processor.v1.otlp",
    ];
    let runtime = "plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc";
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = {unused:?}
[grpc]
  address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  disable_hugetlb_controller = true
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
[{runtime}]
  runtime_type = "io.containerd.runc.v2"
[{runtime}.options]
  SystemdCgroup = false
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/opt/cni/bin"
  conf_dir = "/etc/cni/net.d"
"#
    )
}

/// The pods' network. No masquerading: it would hide a pod's address from other nodes.
pub fn cni(node: &Node) -> String {
    format!(
        r#"{{"cniVersion": "0.4.0", "name": "weft-cluster", "plugins": [
  {{"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
   "ipam": {{"type": "host-local", "ranges": [[{{"subnet": "{}"}}]], "routes": [{{"dst": "0.0.0.0/0"}}]}}}},
  {{"type": "portmap", "capabilities": {{"portMappings": true}}}}
]}}
"#,
        node.pods
    )
}

/// The kubelet's. Its node is a control group, so disks and files are the machine's: no eviction before they are full.
pub fn kubelet(node: &Node, shared: Shared) -> String {
    let root = if shared.cgroups { format!("/{}", node.cgroup()) } else { "/".to_owned() };
    let serving = |ending: &str| pki(&format!("{}-serving.{ending}", node.name));
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1\n\
         kind: KubeletConfiguration\n\
         failCgroupV1: false\n\
         failSwapOn: false\n\
         cgroupDriver: cgroupfs\n\
         cgroupRoot: {root}\n\
         containerRuntimeEndpoint: unix://{CONTAINERD_SOCKET}\n\
         address: {address}\n\
         healthzBindAddress: 127.0.0.1\n\
         authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}, x509: {{clientCAFile: {ca}}}}}\n\
         authorization: {{mode: Webhook}}\n\
         tlsCertFile: {certificate}\n\
         tlsPrivateKeyFile: {key}\n\
         clusterDNS: [{DNS_SERVICE}]\n\
         clusterDomain: {DOMAIN}\n\
         resolvConf: {resolv}\n\
         evictionHard: {{memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}}\n\
         imageGCHighThresholdPercent: 100\n\
         nodeStatusUpdateFrequency: 5s\n\
         oomScoreAdj: 0\n\
         maxOpenFiles: 20000\n\
         maxPods: 160\n",
        address = node.address,
        ca = pki("ca.crt"),
        certificate = serving("crt"),
        key = serving("key"),
        resolv = node.dir().join("resolv.conf").display(),
    )
}

/// kube-proxy's. What it would set of conntrack belongs to the whole machine.
pub fn kube_proxy(node: &Node) -> String {
    format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\n\
         kind: KubeProxyConfiguration\n\
         mode: iptables\n\
         clientConnection: {{kubeconfig: {}}}\n\
         clusterCIDR: {PODS}\n\
         hostnameOverride: {}\n\
         oomScoreAdj: 0\n\
         iptables: {{minSyncPeriod: 100ms}}\n\
         conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}\n",
        kubeconfig("kube-proxy"),
        node.name
    )
}

#[cfg(test)]
mod tests {
    use super::{cni, containerd, kube_proxy, kubelet};
    use crate::cluster::layout::{NODES, Shared};

    #[test]
    fn each_node_has_its_own() {
        let [n1, n2] = &NODES;
        let alone = Shared { pids: false, cgroups: false };
        assert!(kubelet(n1, alone).contains("address: 10.77.0.11\n"));
        assert!(kubelet(n1, alone).contains("cgroupRoot: /\n"));
        assert!(kubelet(n1, Shared { cgroups: true, ..alone }).contains("cgroupRoot: /weft-cluster-n1\n"));
        assert!(kubelet(n2, alone).contains("tlsCertFile: /var/lib/weft-cluster/pki/n2-serving.crt\n"));
        assert!(kube_proxy(n2).contains("hostnameOverride: n2\n"));
        assert!(cni(n2).contains(r#"{"subnet": "10.245.2.0/24"}"#));
    }

    #[test]
    fn cni_is_json() {
        let conf: serde_json::Value = serde_json::from_str(&cni(&NODES[0])).expect("JSON");
        assert_eq!(conf["plugins"][0]["ipMasq"], false);
    }

    #[test]
    fn sandboxes_start_from_our_own_image() {
        let conf = containerd();
        assert!(conf.contains("sandbox_image = \"weft.dev/pause:1\"\n"), "{conf}");
        assert!(conf.contains(r#"disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "#), "{conf}");
    }
}
