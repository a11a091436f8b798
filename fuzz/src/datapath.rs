//! What a pod is that is handed over, without what is done for it in the kernel.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use weft_common::Listener;

/// `datapath::PodNetwork`.
#[derive(Debug)]
pub struct PodNetwork {
    pub key: Arc<str>,
    pub netns: PathBuf,
    pub addresses: Vec<IpAddr>,
}

/// `datapath::Standing`.
#[derive(Debug)]
pub struct Standing {
    pub network: PodNetwork,
    pub cookie: u64,
    pub netns: OwnedFd,
    pub listeners: Vec<(Listener, OwnedFd)>,
}
