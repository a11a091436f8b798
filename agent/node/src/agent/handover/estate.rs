//! What an agent hands over, put together from its messages.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::OwnedFd;

use weft_common::Listener;
use weft_datapath::{PodNetwork, Standing};

use super::wire::Message;

/// What an agent hands over.
#[derive(Debug, Default)]
pub struct Estate {
    /// Sockets of the agent itself, by name.
    pub doors: BTreeMap<String, OwnedFd>,
    /// Pods.
    pub pods: Vec<Standing>,
    /// Where each is, by the cookie of its network namespace.
    by_cookie: HashMap<u64, usize>,
}

impl Estate {
    /// Adds what a message brings. True: it was the last.
    ///
    /// # Errors
    /// It is none that belongs here, or comes with other files than it says.
    pub fn take(&mut self, message: Message, files: Vec<OwnedFd>) -> io::Result<bool> {
        let nonsense = || io::Error::other("it hands over what was not asked for");
        match message {
            Message::Doors(names) if names.len() == files.len() => {
                self.doors.extend(names.into_iter().zip(files));
            }
            Message::Pod(pod) => {
                let netns = files.into_iter().next().ok_or_else(nonsense)?;
                self.by_cookie.insert(pod.cookie, self.pods.len());
                self.pods.push(Standing {
                    network: PodNetwork { key: pod.key.into(), netns: pod.netns, addresses: pod.addresses },
                    cookie: pod.cookie,
                    netns,
                    listeners: Vec::new(),
                });
            }
            Message::Listeners(places) if places.len() == files.len() => {
                for ((cookie, kind, worker), file) in places.into_iter().zip(files) {
                    // A pod that has just left may have listeners still.
                    if let Some(&at) = self.by_cookie.get(&cookie) {
                        self.pods[at].listeners.push((Listener { cookie, kind, worker }, file));
                    }
                }
            }
            Message::End => return Ok(true),
            _ => return Err(nonsense()),
        }
        Ok(false)
    }
}
