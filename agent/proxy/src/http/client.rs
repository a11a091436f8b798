//! A client's HTTP connection, as far as its requests share it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::half_close::HalfClose;
use super::interim::Interim;
use super::target::Heads;
use super::upgrade::Switch;
use crate::connection::Downstream;

/// What the requests of one connection share.
#[derive(Debug)]
pub(super) struct Client {
    /// Who opened it, and to where.
    pub(super) down: Rc<Downstream>,
    /// Its way for interim responses; `None` for HTTP/2.
    pub(super) interim: Option<Arc<Interim>>,
    /// The heads that come on it; of HTTP/2 nobody asks for them.
    pub(super) heads: Rc<Heads>,
    /// What it does about a client that has said all; `None` for HTTP/2, whose clients never have.
    pub(super) half_close: Option<Rc<HalfClose>>,
    /// Set when it leaves HTTP for another protocol.
    pub(super) switch: RefCell<Option<Switch>>,
}

impl Client {
    /// Of HTTP/1.1.
    pub(super) fn http1(down: Rc<Downstream>, interim: Arc<Interim>) -> Rc<Self> {
        Self::new(down, Some(interim), Some(Rc::default()))
    }

    /// Of HTTP/2.
    pub(super) fn http2(down: Rc<Downstream>) -> Rc<Self> {
        Self::new(down, None, None)
    }

    fn new(
        down: Rc<Downstream>,
        interim: Option<Arc<Interim>>,
        half_close: Option<Rc<HalfClose>>,
    ) -> Rc<Self> {
        Rc::new(Self { down, interim, half_close, heads: Rc::default(), switch: RefCell::new(None) })
    }

    /// Whether one request follows another on it.
    pub(super) fn is_http1(&self) -> bool {
        self.interim.is_some()
    }
}
