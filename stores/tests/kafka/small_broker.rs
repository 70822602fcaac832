//! A broker of one topic, which can be fenced as KRaft fences one that was silent for a moment: the
//! cluster then names no broker. The real one cannot be asked to do it. It leads the first partition; any
//! others have no leader, as when the brokers that have them are away, or one that it only names.
//!
//! Of each request it answers the last version that it says it understands, which is what the client
//! takes; it keeps nothing
//! (<https://kafka.apache.org/protocol>).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// Its threads end with their connections; the one that accepts ends with the tests.
pub(crate) struct SmallBroker {
    shared: Arc<Shared>,
}

struct Shared {
    topic: String,
    partitions: i32,
    address: SocketAddr,
    other: OnceLock<SocketAddr>,
    fenced: AtomicBool,
    connections: AtomicUsize,
}

/// Of each request that is understood: its key, and the first and last version.
const KEYS: [(i16, i16, i16); 7] = [
    (PRODUCE, 3, 7),
    (FETCH, 4, 4),
    (LIST_OFFSETS, 1, 1),
    (METADATA, 4, 4),
    (FIND_COORDINATOR, 0, 0),
    (API_VERSIONS, 3, 3),
    (INIT_PRODUCER_ID, 0, 0),
];
const PRODUCE: i16 = 0;
const FETCH: i16 = 1;
const LIST_OFFSETS: i16 = 2;
const METADATA: i16 = 3;
const FIND_COORDINATOR: i16 = 10;
const API_VERSIONS: i16 = 18;
const INIT_PRODUCER_ID: i16 = 22;

const COORDINATOR_NOT_AVAILABLE: i16 = 15;
const NODE: i32 = 1;
const OTHER_NODE: i32 = 2;
const NOBODY: i32 = -1;
/// The library starts anew when its last connection has gone, but forgets it when it comes to the end
/// of the answer later than that: so there is much to read.
const OTHER_TOPICS: i32 = 5_000;
const LOG_TIME: i64 = 1_700_000_000_000;

impl SmallBroker {
    pub(crate) fn start(topic: &str, partitions: i32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let shared = Arc::new(Shared {
            topic: topic.to_owned(),
            partitions,
            address: listener.local_addr().unwrap(),
            other: OnceLock::new(),
            fenced: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
        });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let shared = accepting.clone();
                let connection = connection.unwrap();
                shared.connections.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    shared.serve(connection);
                    shared.connections.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { shared }
    }

    pub(crate) fn address(&self) -> String {
        self.shared.address.to_string()
    }

    /// From now on another broker leads the partitions after the first.
    pub(crate) fn others_are_led_by(&self, address: SocketAddr) {
        self.shared.other.set(address).unwrap();
    }

    pub(crate) fn fence(&self, fenced: bool) {
        self.shared.fenced.store(fenced, Ordering::SeqCst);
    }

    /// How many connections there are.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Shared {
    /// Until the client goes.
    fn serve(&self, mut connection: TcpStream) {
        let mut size = [0; 4];
        while connection.read_exact(&mut size).is_ok() {
            let mut request = vec![0; usize::try_from(i32::from_be_bytes(size)).unwrap()];
            if connection.read_exact(&mut request).is_err() {
                return;
            }
            let key = i16::from_be_bytes([request[0], request[1]]);
            let mut answer = Answer(request[4..8].to_vec());
            self.answer(key, &mut answer);
            let size = i32::try_from(answer.0.len()).unwrap().to_be_bytes();
            if connection.write_all(&[&size[..], &answer.0].concat()).is_err() {
                return;
            }
        }
    }

    fn answer(&self, key: i16, answer: &mut Answer) {
        match key {
            API_VERSIONS => api_versions(answer),
            METADATA => self.metadata(answer),
            FIND_COORDINATOR => {
                answer.short(COORDINATOR_NOT_AVAILABLE).int(NOBODY).text("").int(0);
            }
            INIT_PRODUCER_ID => {
                answer.int(0).short(0).long(1).short(0);
            }
            PRODUCE => {
                answer.int(1).text(&self.topic).int(1);
                answer.int(0).short(0).long(0).long(LOG_TIME).long(0).int(0);
            }
            LIST_OFFSETS => {
                answer.int(1).text(&self.topic).int(1).int(0).short(0).long(LOG_TIME).long(7);
            }
            key => panic!("a request {key} that nobody said is understood"),
        }
    }

    fn metadata(&self, answer: &mut Answer) {
        let fenced = self.fenced.load(Ordering::SeqCst);
        let other = self.other.get();
        let named = [(NODE, Some(&self.address)), (OTHER_NODE, other)];
        let named = named.into_iter().filter_map(|(node, at)| Some((node, at?)));
        let named: Vec<_> = named.filter(|_| !fenced).collect();
        answer.int(0).int(i32::try_from(named.len()).unwrap());
        for (node, at) in named {
            answer.int(node).text(&at.ip().to_string()).int(at.port().into()).short(-1);
        }
        let leader = if fenced { NOBODY } else { NODE };
        // The cluster, its controller, and the topic.
        let others = if fenced { OTHER_TOPICS } else { 0 };
        answer.text("small").int(leader).int(1 + others).short(0).text(&self.topic).byte(0);
        // Each partition, its leader, its replicas, and those in sync.
        answer.int(self.partitions);
        for number in 0..self.partitions {
            let leader = match number {
                0 => leader,
                _ => other.map_or(NOBODY, |_| OTHER_NODE),
            };
            answer.short(0).int(number).int(leader).int(1).int(NODE).int(1).int(NODE);
        }
        for number in 0..others {
            answer.short(0).text(&format!("other-{number:0200}")).byte(0).int(0);
        }
    }
}

/// Lengths are one more here, in a byte, and tags end what is told.
fn api_versions(answer: &mut Answer) {
    answer.short(0).byte(u8::try_from(KEYS.len() + 1).unwrap());
    for (key, first, last) in KEYS {
        answer.short(key).short(first).short(last).byte(0);
    }
    answer.int(0).byte(0);
}

/// What is written of an answer.
struct Answer(Vec<u8>);

impl Answer {
    fn byte(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    fn short(&mut self, value: i16) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn int(&mut self, value: i32) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn long(&mut self, value: i64) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn text(&mut self, value: &str) -> &mut Self {
        self.short(i16::try_from(value.len()).unwrap());
        self.0.extend(value.as_bytes());
        self
    }
}
