//! An HTTP/1.1 client for one connection that is kept alive: a write, a read, no copies on the way.
//!
//! It shares the machine's cores with the server, so each microsecond it takes is one that the
//! server does not have.

use std::io;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A request that takes longer has failed. Without a bound a server that hangs would hang the run.
const PATIENCE: Duration = Duration::from_secs(30);

/// How much to ask the socket for at once.
const READ_BYTES: usize = 16 * 1024;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// Host and port, as sockets and the `Host` header take it.
    pub(crate) authority: String,
}

impl Address {
    /// Reads `http://host[:port]`.
    pub(crate) fn from_url(url: &str) -> anyhow::Result<Self> {
        let Some(rest) = url.strip_prefix("http://") else {
            bail!("{url} must begin with http://: the load test speaks no TLS");
        };
        let authority = rest.trim_end_matches('/');
        if authority.is_empty() || authority.contains(['/', '?', '@']) {
            bail!("{url} must be http://host:port");
        }
        let port = if authority.contains(':') { "" } else { ":80" };
        Ok(Self { authority: format!("{authority}{port}") })
    }

    /// The lines of a request that are the same each time, up to the length of its body.
    pub(crate) fn head(&self, method: &str, path: &str, api_key: &str) -> String {
        let authority = &self.authority;
        format!(
            "{method} {path} HTTP/1.1\r\nhost: {authority}\r\nauthorization: Bearer {api_key}\r\n\
             content-type: application/json\r\n"
        )
    }
}

/// One connection, opened when it is first used and again after it broke.
pub(crate) struct Connection {
    address: Address,
    stream: Option<TcpStream>,
    received: Vec<u8>,
    body: Vec<u8>,
}

/// An answer that was received whole.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    /// Its status code.
    pub(crate) status: u16,
    /// Its body, without any framing.
    pub(crate) body: &'a [u8],
}

impl Connection {
    /// Not open yet.
    pub(crate) fn new(address: Address) -> Self {
        Self { address, stream: None, received: Vec::new(), body: Vec::new() }
    }

    /// Opens it now, so that the first request does not have to.
    pub(crate) async fn open(&mut self) -> io::Result<()> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(&self.address.authority).await?;
            stream.set_nodelay(true)?;
            self.stream = Some(stream);
        }
        Ok(())
    }

    /// Sends a whole request and reads the whole answer.
    ///
    /// # Errors
    /// When the connection breaks or nothing comes for [`PATIENCE`]: the server may have acted.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> io::Result<Answer<'_>> {
        let outcome = tokio::time::timeout(PATIENCE, self.converse(request)).await;
        let status = match outcome {
            Ok(Ok(status)) => status,
            Ok(Err(error)) => {
                self.stream = None;
                return Err(error);
            }
            Err(_) => {
                self.stream = None;
                return Err(io::ErrorKind::TimedOut.into());
            }
        };
        Ok(Answer { status, body: &self.body })
    }

    async fn converse(&mut self, request: &[u8]) -> io::Result<u16> {
        self.open().await?;
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        stream.write_all(request).await?;
        self.received.clear();
        self.body.clear();
        let head = loop {
            match read_head(&self.received)? {
                Some(head) => break head,
                None => receive(stream, &mut self.received).await?,
            }
        };
        self.received.drain(..head.bytes);
        match head.framing {
            Framing::Length(length) => {
                while self.received.len() < length {
                    receive(stream, &mut self.received).await?;
                }
                self.received.truncate(length);
                std::mem::swap(&mut self.body, &mut self.received);
            }
            Framing::Chunked => loop {
                let (taken, ended) = take_chunks(&self.received, &mut self.body)?;
                self.received.drain(..taken);
                if ended {
                    break;
                }
                receive(stream, &mut self.received).await?;
            },
        }
        if head.close {
            self.stream = None;
        }
        Ok(head.status)
    }
}

async fn receive(stream: &mut TcpStream, into: &mut Vec<u8>) -> io::Result<()> {
    into.reserve(READ_BYTES);
    match stream.read_buf(into).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
}

#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    bytes: usize,
    framing: Framing,
    close: bool,
}

fn invalid(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Reads an answer's head; `None` when it is not all there yet.
fn read_head(received: &[u8]) -> io::Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(bytes) = response.parse(received).map_err(invalid)? else {
        return Ok(None);
    };
    let (mut framing, mut close) = (None, false);
    for header in response.headers.iter() {
        let value = std::str::from_utf8(header.value).unwrap_or("").trim();
        if header.name.eq_ignore_ascii_case("content-length") {
            framing = Some(Framing::Length(value.parse().map_err(invalid)?));
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            framing = Some(Framing::Chunked);
        } else if header.name.eq_ignore_ascii_case("connection") {
            close = value.eq_ignore_ascii_case("close");
        }
    }
    let status = response.code.ok_or_else(|| invalid("no status"))?;
    let framing = framing.unwrap_or(Framing::Length(0));
    Ok(Some(Head { status, bytes, framing, close }))
}

/// Moves whole chunks to `body`. Answers how many bytes it took and whether that was the last one.
fn take_chunks(received: &[u8], body: &mut Vec<u8>) -> io::Result<(usize, bool)> {
    let mut taken = 0;
    loop {
        let rest = &received[taken..];
        let parsed = httparse::parse_chunk_size(rest);
        let httparse::Status::Complete((line, size)) =
            parsed.map_err(|e| invalid(e.to_string()))?
        else {
            return Ok((taken, false));
        };
        let size = usize::try_from(size).map_err(invalid)?;
        // No trailers are asked for: after the last chunk comes an empty line.
        let Some(end) = line.checked_add(size).and_then(|end| end.checked_add(2)) else {
            return Err(invalid("a chunk too large"));
        };
        if rest.len() < end {
            return Ok((taken, false));
        }
        body.extend_from_slice(&rest[line..line + size]);
        taken += end;
        if size == 0 {
            return Ok((taken, true));
        }
    }
}

/// A connection for the calls beside the load: makes users, reads usage.
pub(crate) struct Api {
    connection: Connection,
    api_key: String,
}

impl Api {
    /// Speaks with that key.
    pub(crate) fn new(address: Address, api_key: &str) -> Self {
        Self { connection: Connection::new(address), api_key: api_key.to_owned() }
    }

    /// Asks for `path` and gives the answer.
    pub(crate) async fn get(&mut self, path: &str, accept: &str) -> io::Result<Answer<'_>> {
        let head = self.connection.address.head("GET", path, &self.api_key);
        self.connection.exchange(format!("{head}accept: {accept}\r\n\r\n").as_bytes()).await
    }

    /// Posts JSON and gives the answer.
    pub(crate) async fn post(&mut self, path: &str, body: &str) -> io::Result<Answer<'_>> {
        let head = self.connection.address.head("POST", path, &self.api_key);
        let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
        self.connection.exchange(request.as_bytes()).await
    }
}

impl Answer<'_> {
    /// Its JSON, if it is a success.
    pub(crate) fn json(&self) -> anyhow::Result<serde_json::Value> {
        if !(200..300).contains(&self.status) {
            let body = String::from_utf8_lossy(self.body);
            bail!("the server answered {}: {body}", self.status);
        }
        serde_json::from_slice(self.body).context("the answer is not JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_from_a_url() {
        let of = |url| Address::from_url(url).map(|a| a.authority).ok();
        assert_eq!(of("http://127.0.0.1:8080/").as_deref(), Some("127.0.0.1:8080"));
        assert_eq!(of("http://meter.example").as_deref(), Some("meter.example:80"));
        assert_eq!(of("https://meter.example"), None);
        assert_eq!(of("http://meter.example/api"), None);
    }

    #[test]
    fn a_head_is_read_once_it_is_all_there() {
        let head = b"HTTP/1.1 201 Created\r\nContent-Length: 12\r\nconnection: close\r\n\r\n";
        for cut in 0..head.len() {
            assert_eq!(read_head(&head[..cut]).unwrap(), None);
        }
        let framing = Framing::Length(12);
        let whole = Head { status: 201, bytes: head.len(), framing, close: true };
        assert_eq!(read_head(head).unwrap(), Some(whole));
        assert!(read_head(b"SSH-2.0-OpenSSH\r\n\r\n").is_err());
    }

    #[test]
    fn chunks_are_put_together_wherever_they_are_cut() {
        let sent = b"5\r\nevent\r\nA;note=x\r\n,user,type\r\n0\r\n\r\n";
        for cut in 0..=sent.len() {
            let mut body = Vec::new();
            let (taken, ended) = take_chunks(&sent[..cut], &mut body).unwrap();
            assert_eq!(ended, cut == sent.len());
            let (more, ended) =
                if ended { (0, true) } else { take_chunks(&sent[taken..], &mut body).unwrap() };
            assert!(ended && taken + more == sent.len());
            assert_eq!(body, b"event,user,type");
        }
        assert!(take_chunks(b"five\r\n", &mut Vec::new()).is_err());
    }
}
