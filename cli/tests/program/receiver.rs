//! An operator's endpoint that is told of alerts.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use serde_json::Value;
use sha2::Sha256;

/// Of a client that sends half a request.
const TIMEOUT: Duration = Duration::from_secs(20);

const KEY: &[u8; 32] = b"0123456789abcdef0123456789abcdef";

/// A message as it came, with a good signature.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) id: String,
    pub(crate) body: Value,
}

/// Listens until the test ends.
pub(crate) struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    /// What it answers.
    status: AtomicU16,
    heard: Mutex<Vec<Heard>>,
}

impl Receiver {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { status: AtomicU16::new(204), heard: Mutex::default() });
        let hearing = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&hearing);
                std::thread::spawn(move || shared.hear(stream));
            }
        });
        Self { address, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/alerts", self.address)
    }

    /// What its messages must be signed with.
    pub(crate) fn secret() -> String {
        format!("whsec_{}\n", STANDARD.encode(KEY))
    }

    pub(crate) fn answer(&self, status: u16) {
        self.shared.status.store(status, Ordering::SeqCst);
    }

    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.shared.heard.lock().unwrap().clone()
    }
}

impl Shared {
    /// One request; a client that goes away in the middle has said nothing.
    fn hear(&self, stream: TcpStream) -> Option<()> {
        stream.set_read_timeout(Some(TIMEOUT)).ok()?;
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            lines.push(line.to_owned());
        }
        let header = |name: &str| {
            let fields = lines.iter().filter_map(|line| line.split_once(": "));
            let mut values = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
            values.next().map(|(_, value)| value.to_owned())
        };
        let mut body = vec![0; header("content-length")?.parse().ok()?];
        reader.read_exact(&mut body).ok()?;
        let (id, time) = (header("webhook-id")?, header("webhook-timestamp")?);
        let body = String::from_utf8(body).ok()?;
        let mut mac = Hmac::<Sha256>::new_from_slice(KEY).ok()?;
        mac.update(format!("{id}.{time}.{body}").as_bytes());
        let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        let status = if header("webhook-signature")? == signature {
            self.status.load(Ordering::SeqCst)
        } else {
            401
        };
        if status != 401 {
            let body = serde_json::from_str(&body).ok()?;
            self.heard.lock().unwrap().push(Heard { id, body });
        }
        let mut stream = stream;
        let answer =
            format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        stream.write_all(answer.as_bytes()).ok()
    }
}
