//! The server name that a TLS client asks for in its first message. Nothing is taken away: the message goes on as it came.

use bytes::{Bytes, BytesMut};
use rustls::server::{Accepted, Acceptor};

use super::limits;
use super::stream::Stream;

/// A client's first bytes.
pub(super) struct ClientHello {
    /// As they came.
    pub(super) bytes: Bytes,
    /// What a server may go on from; `None`: they are not TLS.
    pub(super) accepted: Option<Box<Accepted>>,
    /// Whom they ask for, in lower case (RFC 6066, 3); `None`: nobody, or they are not TLS.
    pub(super) name: Option<Box<str>>,
}

/// Reads until it is clear whom a client asks for. There is no time limit, as for all that clients say first. `None`: it has
/// left without a word.
pub(super) async fn read(stream: &mut Stream) -> Option<ClientHello> {
    let mut bytes = BytesMut::new();
    let mut acceptor = Acceptor::default();
    loop {
        let fed = bytes.len();
        let open = stream.read_some(&mut bytes, limits::SNIFF_BYTES / 4).await.ok()?;
        let accepted = match feed(&mut acceptor, &bytes[fed..]) {
            Said::More if open && bytes.len() < limits::SNIFF_BYTES => continue,
            Said::More | Said::Nonsense => None,
            Said::All(accepted) => Some(accepted),
        };
        if bytes.is_empty() {
            return None;
        }
        let name = accepted.as_ref().and_then(|accepted| {
            Some(accepted.client_hello().server_name()?.to_ascii_lowercase().into_boxed_str())
        });
        return Some(ClientHello { bytes: bytes.freeze(), accepted, name });
    }
}

enum Said {
    /// Not all yet.
    More,
    /// No TLS.
    Nonsense,
    /// All of the message.
    All(Box<Accepted>),
}

fn feed(acceptor: &mut Acceptor, mut bytes: &[u8]) -> Said {
    while !bytes.is_empty() {
        if !acceptor.read_tls(&mut bytes).is_ok_and(|count| count > 0) {
            return Said::Nonsense;
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => return Said::All(Box::new(accepted)),
            Err(_) => return Said::Nonsense,
        }
    }
    Said::More
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    fn hello(name: &'static str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        let name = ServerName::try_from(name).unwrap();
        let mut bytes = Vec::new();
        ClientConnection::new(Arc::new(config), name).unwrap().write_tls(&mut bytes).unwrap();
        bytes
    }

    /// What is read of a client that sends these pieces, one after the other, and then closes.
    async fn read_from(pieces: Vec<Vec<u8>>) -> Option<ClientHello> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let mut server = Stream::from(server);
        let write = async {
            for piece in pieces {
                client.write_all(&piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            client.shutdown().await.unwrap();
        };
        tokio::join!(read(&mut server), write).0
    }

    #[tokio::test]
    async fn a_client_says_whom_it_asks_for() {
        let whole = hello("Secure.Shop.example");
        let told = read_from(vec![whole.clone()]).await.unwrap();
        assert_eq!(told.name.as_deref(), Some("secure.shop.example"));
        assert_eq!(told.bytes, whole, "what was read goes on as it came");
        let bytewise = whole.iter().map(|byte| vec![*byte]).collect();
        let told = read_from(bytewise).await.unwrap();
        assert_eq!((told.name.as_deref(), told.bytes.len()), (Some("secure.shop.example"), whole.len()));
        assert_eq!(read_from(vec![hello("10.0.0.1")]).await.unwrap().name, None, "an address is no name");
    }

    #[tokio::test]
    async fn what_is_no_tls_asks_for_nobody() {
        assert!(read_from(vec![]).await.is_none());
        let endless = vec![0x16; 40_000];
        for said in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\x00\x05hello", &endless] {
            let told = read_from(vec![said.to_vec()]).await.unwrap();
            assert_eq!(told.name, None);
            assert!(said.starts_with(&told.bytes));
        }
        let cut = hello("shop.example")[..40].to_vec();
        let told = read_from(vec![cut.clone()]).await.unwrap();
        assert!((&*told.bytes, told.name.is_none(), told.accepted.is_none()) == (&*cut, true, true));
    }
}
