//! The connection to Redis: made again by itself, and never used before it is known which life of
//! which server it belongs to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use metering::Unavailable;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, Pipeline, RedisError, Value};
use tokio::sync::Mutex;

use super::library::{Function, Library};
use super::{RedisSettings, unavailable};

/// How long to wait after a connection attempt that failed. Too short: a server that comes up is
/// hammered by every process; too long: it is away longer than it must.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// How old a connection must be before an epoch of another incarnation makes it suspect: it may
/// have been made before the server changed its role.
const SUSPECT_AFTER: Duration = Duration::from_secs(1);

/// How often a connection that works is asked whether it still leads to the same life of the server.
/// A server changes its replication id beneath its clients: when it gets its first replica, or was
/// demoted and promoted while nobody called. Those who connect later see the new one, and the epochs
/// of the old one must then be opened anew.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// Which keys the functions read and write, and how (`lua/state.lua`): counted up when a library would
/// not see what one of another version has changed. Their epochs differ then, so they never share one.
const LAYOUT: u32 = 2;

/// Calls in one pipeline: bounds how long others wait for their turn.
const CALLS_PER_PIPELINE: usize = 64;

/// One function call, for one partition.
pub(super) struct Call {
    pub(super) function: Function,
    pub(super) key: String,
    /// Without the incarnation, which every call has as its first argument.
    pub(super) arguments: Vec<Vec<u8>>,
}

/// A connection and the life of the server that it belongs to.
#[derive(Clone)]
pub(super) struct Link {
    connection: MultiplexedConnection,
    pub(super) incarnation: Arc<str>,
    number: u64,
    made: Instant,
    checked: Instant,
}

/// The server, connected to when needed.
pub(super) struct Server {
    client: Client,
    config: AsyncConnectionConfig,
    library: Library,
    generation: u16,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    link: Option<Link>,
    /// How many there were.
    links: u64,
    failed: Option<(Instant, Unavailable)>,
}

impl Server {
    pub(super) fn new(settings: &RedisSettings) -> Result<Self, Unavailable> {
        let client = Client::open(settings.url.as_str()).map_err(unavailable)?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(settings.connect_timeout))
            .set_response_timeout(Some(settings.response_timeout));
        let (library, state) = (Library::new(), Mutex::default());
        Ok(Self { client, config, library, generation: settings.generation, state })
    }

    /// A connection that works, as far as is known.
    pub(super) async fn link(&self) -> Result<Link, Unavailable> {
        let mut state = self.state.lock().await;
        if let Some(link) = &mut state.link {
            if link.checked.elapsed() < CHECK_EVERY || self.still_leads_there(link).await {
                return Ok(link.clone());
            }
            state.link = None;
        }
        if let Some((at, reason)) = &state.failed
            && at.elapsed() < RETRY_AFTER
        {
            return Err(reason.clone());
        }
        match self.connect(state.links + 1).await {
            Ok(link) => {
                state.links = link.number;
                state.failed = None;
                state.link = Some(link.clone());
                Ok(link)
            }
            Err(error) => {
                let reason = unavailable(error);
                state.failed = Some((Instant::now(), reason.clone()));
                Err(reason)
            }
        }
    }

    /// Runs calls in order, each atomic; answers in the order asked.
    pub(super) async fn run(&self, link: &Link, calls: &[Call]) -> Vec<Result<Value, Unavailable>> {
        let mut answers = Vec::with_capacity(calls.len());
        for calls in calls.chunks(CALLS_PER_PIPELINE) {
            answers.extend(self.run_together(link, calls).await);
        }
        answers
    }

    /// The value of a key.
    pub(super) async fn get(&self, link: &Link, key: &str) -> Result<Option<Vec<u8>>, Unavailable> {
        match self.ask(link, redis::cmd("GET").arg(key)).await? {
            Value::BulkString(bytes) => Ok(Some(bytes)),
            Value::Nil => Ok(None),
            other => Err(unavailable(format!("GET answered {other:?}"))),
        }
    }

    /// A plain command.
    pub(super) async fn ask(&self, link: &Link, command: &Cmd) -> Result<Value, Unavailable> {
        let mut connection = link.connection.clone();
        let answer = connection.send_packed_command(command).await;
        match answer.and_then(|value| value.extract_error()) {
            Ok(value) => Ok(value),
            Err(error) => {
                self.gave_error(link, &error).await;
                Err(unavailable(error))
            }
        }
    }

    /// An epoch of another incarnation was found through this connection. Normally the epoch is
    /// the old one; but an old connection is made anew, in case it is the server that has changed.
    pub(super) async fn suspect(&self, link: &Link) {
        if link.made.elapsed() >= SUSPECT_AFTER {
            self.drop_link(link).await;
        }
    }

    async fn run_together(&self, link: &Link, calls: &[Call]) -> Vec<Result<Value, Unavailable>> {
        let all: Vec<usize> = (0..calls.len()).collect();
        let mut answers = match self.send(link, calls, &all).await {
            Ok(answers) => answers,
            Err(reason) => return vec![Err(reason); calls.len()],
        };
        let lost: Vec<usize> =
            all.into_iter().filter(|place| is_unknown_function(&answers[*place])).collect();
        if !lost.is_empty() {
            // They were not run: somebody has flushed the functions.
            let again = match self.load(&mut link.connection.clone()).await {
                Ok(()) => self.send(link, calls, &lost).await,
                Err(error) => Err(unavailable(error)),
            };
            match again {
                Ok(again) => {
                    for (place, answer) in lost.into_iter().zip(again) {
                        answers[place] = answer;
                    }
                }
                Err(reason) => return vec![Err(reason); calls.len()],
            }
        }
        let mut told = Vec::with_capacity(answers.len());
        for answer in answers {
            let answer = answer.extract_error();
            if let Err(error) = &answer {
                self.gave_error(link, error).await;
            }
            told.push(answer.map_err(unavailable));
        }
        told
    }

    async fn send(
        &self,
        link: &Link,
        calls: &[Call],
        places: &[usize],
    ) -> Result<Vec<Value>, Unavailable> {
        let mut pipeline = Pipeline::with_capacity(places.len());
        for call in places.iter().filter_map(|place| calls.get(*place)) {
            let mut command = redis::cmd("FCALL");
            command.arg(self.library.name(call.function)).arg(1).arg(&call.key);
            command.arg(link.incarnation.as_bytes());
            for argument in &call.arguments {
                command.arg(argument.as_slice());
            }
            pipeline.add_command(command);
        }
        let mut connection = link.connection.clone();
        match connection.send_packed_commands(&pipeline, 0, places.len()).await {
            Ok(answers) if answers.len() == places.len() => Ok(answers),
            Ok(answers) => {
                self.drop_link(link).await;
                Err(unavailable(format!("{} answers to {} calls", answers.len(), places.len())))
            }
            Err(error) => {
                self.drop_link(link).await;
                Err(unavailable(error))
            }
        }
    }

    async fn gave_error(&self, link: &Link, error: &RedisError) {
        // A server that is loading, deposed or out of reach may be another one the next time.
        let elsewhere = ["READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "NOAUTH"];
        let not_here = error.code().is_some_and(|code| elsewhere.contains(&code));
        if not_here || error.code().is_none() {
            self.drop_link(link).await;
        }
    }

    async fn drop_link(&self, link: &Link) {
        let mut state = self.state.lock().await;
        if state.link.as_ref().is_some_and(|current| current.number == link.number) {
            state.link = None;
        }
    }

    async fn connect(&self, number: u64) -> Result<Link, RedisError> {
        let mut connection =
            self.client.get_multiplexed_async_connection_with_config(&self.config).await?;
        let incarnation = self.incarnation(&mut connection).await?;
        let memory: String = redis::cmd("INFO").arg("memory").query_async(&mut connection).await?;
        if let Some(policy) = field(&memory, "maxmemory_policy")
            && policy != "noeviction"
        {
            tracing::warn!(policy, "Redis may evict what is in flight: set noeviction");
        }
        self.load(&mut connection).await?;
        let made = Instant::now();
        Ok(Link { connection, incarnation, number, made, checked: made })
    }

    async fn still_leads_there(&self, link: &mut Link) -> bool {
        let found = self.incarnation(&mut link.connection.clone()).await;
        let same = found.is_ok_and(|found| found == link.incarnation);
        if same {
            link.checked = Instant::now();
        } else {
            tracing::warn!("Redis is not what it was any more: it is connected to anew");
        }
        same
    }

    /// Which life of which server this is, and which log it counts for: an ingest that still writes to
    /// a log that is not counted any more must find no epoch of its own. Nor must a program that
    /// knows another layout.
    async fn incarnation(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<Arc<str>, RedisError> {
        let server: String = redis::cmd("INFO").arg("server").query_async(connection).await?;
        let replication = redis::cmd("INFO").arg("replication").to_owned();
        let replication: String = replication.query_async(connection).await?;
        let life = (field(&server, "run_id"), field(&replication, "master_replid"));
        let (Some(run_id), Some(replication_id)) = life else {
            return Err(RedisError::from((redis::ErrorKind::Parse, "INFO without run_id")));
        };
        Ok(format!("{run_id}:{replication_id}:{}:{LAYOUT}", self.generation).into())
    }

    async fn load(&self, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        let mut load = redis::cmd("FUNCTION");
        load.arg("LOAD").arg(&self.library.source);
        match connection.send_packed_command(&load).await?.extract_error() {
            Ok(_) => Ok(()),
            // The name says what is in it.
            Err(error) if error.detail().is_some_and(|text| text.contains("already exists")) => {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

fn is_unknown_function(answer: &Value) -> bool {
    matches!(answer, Value::ServerError(error)
        if error.details().is_some_and(|text| text.contains("Function not found")))
}
