//! A client's HTTP connection, as far as its requests share it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::interim::Interim;
use super::target::Heads;
use super::upgrade::Switch;
use crate::proxy::connection::Downstream;

/// What the requests of one connection share.
#[derive(Debug)]
pub(super) struct Client {
    /// Who opened it, and to where.
    pub(super) down: Rc<Downstream>,
    /// Its way for interim responses; `None` for HTTP/2.
    pub(super) interim: Option<Arc<Interim>>,
    /// The heads that come on it; of HTTP/2 nobody asks for them.
    pub(super) heads: Rc<Heads>,
    /// Set when it leaves HTTP for another protocol.
    pub(super) switch: RefCell<Option<Switch>>,
}

impl Client {
    pub(super) fn new(down: Rc<Downstream>, interim: Option<Arc<Interim>>) -> Rc<Self> {
        Rc::new(Self { down, interim, heads: Rc::default(), switch: RefCell::new(None) })
    }

    /// Whether one request follows another on it.
    pub(super) fn is_http1(&self) -> bool {
        self.interim.is_some()
    }
}
