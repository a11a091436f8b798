//! Which ports some service speaks HTTP on, or may.

use std::collections::BTreeMap;

/// Ports, each with the number of services that use it.
#[derive(Debug, Default, Clone)]
pub(crate) struct PortIndex {
    users: BTreeMap<u16, u32>,
}

impl PortIndex {
    pub(crate) fn contains(&self, port: u16) -> bool {
        self.users.contains_key(&port)
    }

    pub(crate) fn add(&mut self, port: u16) {
        *self.users.entry(port).or_default() += 1;
    }

    pub(crate) fn remove(&mut self, port: u16) {
        if let Some(users) = self.users.get_mut(&port) {
            *users -= 1;
            if *users == 0 {
                self.users.remove(&port);
            }
        }
    }
}
