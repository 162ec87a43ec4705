//! What a broker says about itself at the start of a connection. The client library keeps that to itself, so the
//! connection goes through our own hands, which TLS needs anyway.

use crate::probe::Answer;
use lapin::protocol::AMQPClass;
use lapin::protocol::connection::AMQPMethod;
use lapin::types::{AMQPValue, FieldTable};
use std::io;
use std::net::TcpStream as BlockingTcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as BlockingUnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

/// A greeting is some 500 bytes long.
const ENOUGH: usize = 16 << 10;
/// Kind, channel and length stand before the content of a frame.
const FRAME_HEAD: usize = 7;

/// The first bytes that came from a broker.
#[derive(Debug, Clone, Default)]
pub(crate) struct Greeting(Arc<Mutex<Vec<u8>>>);

impl Greeting {
    /// The same connection, overheard until the greeting is over.
    pub(crate) fn overheard(&self, theirs: impl AsyncRead + AsyncWrite + Send + 'static) -> io::Result<TcpStream> {
        let (ours, relay) = BlockingUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        relay.set_nonblocking(true)?;
        // The library wants a TCP stream; it only reads and writes, which any stream socket can.
        let ours = TcpStream::from_std(BlockingTcpStream::from(OwnedFd::from(ours)))?;
        let relay = UnixStream::from_std(relay)?;
        tokio::spawn(self.clone().carry(theirs, relay));
        Ok(ours)
    }

    async fn carry(self, theirs: impl AsyncRead + AsyncWrite, relay: UnixStream) {
        let (mut from_broker, mut to_broker) = tokio::io::split(theirs);
        let (mut from_client, mut to_client) = relay.into_split();
        let there = async {
            let _ = tokio::io::copy(&mut from_client, &mut to_broker).await;
            let _ = to_broker.shutdown().await;
        };
        let back = async {
            let mut bytes = vec![0; 4096];
            while let Ok(count @ 1..) = from_broker.read(&mut bytes).await {
                self.hear(&bytes[..count]);
                if to_client.write_all(&bytes[..count]).await.is_err() {
                    break;
                }
            }
            let _ = to_client.shutdown().await;
        };
        tokio::join!(there, back);
    }

    fn hear(&self, bytes: &[u8]) {
        let mut heard = self.heard();
        if heard.len() < ENOUGH {
            heard.extend_from_slice(bytes);
        }
    }

    fn heard(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing came yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.heard().is_empty()
    }

    /// Who greeted.
    pub(crate) fn answer(&self) -> Answer {
        let properties = read_properties(&self.heard());
        let text = |key: &str| {
            let value = properties.as_ref()?.inner().get(key)?;
            match value {
                AMQPValue::LongString(text) => Some(text.to_string()),
                _ => None,
            }
        };
        Answer { product: text("product").unwrap_or_else(|| "AMQP broker".into()), version: text("version") }
    }

    /// What it is, if it is no AMQP broker of the version that we speak.
    pub(crate) fn strange(&self) -> Option<&'static str> {
        let heard = self.heard();
        match heard.first()? {
            // A frame with a method.
            1 => None,
            _ if heard.starts_with(b"HTTP/") => Some("a web server"),
            _ if heard.starts_with(b"SSH-") => Some("an SSH server"),
            _ if heard.starts_with(b"AMQP") => Some("a broker that speaks another version of AMQP"),
            // A TLS alert.
            0x15 => Some("a server that requires TLS"),
            _ => Some("not an AMQP broker"),
        }
    }
}

fn read_properties(bytes: &[u8]) -> Option<FieldTable> {
    let length: [u8; 4] = bytes.get(3..FRAME_HEAD)?.try_into().ok()?;
    let end = FRAME_HEAD.checked_add(u32::from_be_bytes(length) as usize)?;
    let content = bytes.get(FRAME_HEAD..end)?;
    match lapin::protocol::parse_class(content) {
        Ok((_, AMQPClass::Connection(AMQPMethod::Start(start)))) => Some(start.server_properties),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(bytes: &[u8]) -> Greeting {
        Greeting(Arc::new(Mutex::new(bytes.to_vec())))
    }

    #[test]
    fn a_greeting_names_product_and_version() {
        let table = b"\x07productS\x00\x00\x00\x08RabbitMQ\x07versionS\x00\x00\x00\x063.10.8";
        let mut content = vec![0, 10, 0, 10, 0, 9];
        content.extend((table.len() as u32).to_be_bytes());
        content.extend(table);
        content.extend(b"\x00\x00\x00\x05PLAIN\x00\x00\x00\x05en_US");
        let mut frame = vec![1, 0, 0];
        frame.extend((content.len() as u32).to_be_bytes());
        frame.extend(content);
        frame.push(0xCE);
        let greeting = heard(&frame);
        assert_eq!(greeting.answer().to_string(), "RabbitMQ 3.10.8");
        assert_eq!(greeting.strange(), None);
        // Cut anywhere, it is still no panic.
        for end in 0..frame.len() {
            assert_eq!(heard(&frame[..end]).answer().version.is_some(), end == frame.len() - 1);
        }
    }

    #[test]
    fn what_is_no_broker_is_told_apart() {
        assert_eq!(heard(b"HTTP/1.1 400 Bad Request").strange(), Some("a web server"));
        assert_eq!(heard(b"SSH-2.0-OpenSSH_9.2").strange(), Some("an SSH server"));
        assert_eq!(heard(b"\x15\x03\x03\x00\x02\x02\x46").strange(), Some("a server that requires TLS"));
        assert_eq!(heard(b"").strange(), None);
    }
}
