//! ClickHouse's HTTP interface in front of `libchdb.so`, the ClickHouse engine as a library.
//!
//! For development and tests on machines without containers; production uses the genuine server.
//! What it does not do is listed in `deploy/local/README.md`.

mod door;
mod engine;
mod multipart;
mod parameters;
mod request;
mod sessions;
mod statement;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::door::Door;
use crate::engine::Engine;
use crate::request::Service;
use crate::sessions::Sessions;

const USAGE: &str =
    "usage: tokenmeter-local-clickhouse LIBRARY STATE_FOLDER ADDRESS:PORT CONNECTIONS [CERTIFICATE KEY]";
/// Longer than a statement of a test takes; `deploy/local/down` kills after it.
const DRAIN_MAX: Duration = Duration::from_secs(8);

fn main() -> ExitCode {
    let ended = Options::read().and_then(|options| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        runtime.block_on(serve(options))
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    library: PathBuf,
    state: PathBuf,
    listen: SocketAddr,
    connections: usize,
    door: Door,
}

impl Options {
    fn read() -> Result<Self, String> {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let [library, state, listen, connections, files @ ..] = arguments.as_slice() else {
            return Err(USAGE.to_owned());
        };
        if ![0, 2].contains(&files.len()) {
            return Err(USAGE.to_owned());
        }
        // The engine would read these as a pattern of many files.
        if state.contains(['*', '?', '{', '}', '[', ']']) {
            return Err(format!("{state}: none of * ? {{ }} [ ] may be in the path"));
        }
        Ok(Self {
            library: library.into(),
            state: state.into(),
            listen: listen.parse().map_err(|error| format!("{listen}: {error}"))?,
            connections: connections
                .parse()
                .ok()
                .filter(|connections| *connections > 0)
                .ok_or_else(|| format!("{connections}: not a number of connections"))?,
            door: Door::new(files)?,
        })
    }
}

async fn serve(options: Options) -> Result<(), String> {
    let mut terminated = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupted = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let inbox = empty_folder(&options.state.join("inbox")).map_err(|error| error.to_string())?;
    let listener = TcpListener::bind(options.listen).await.map_err(|error| error.to_string())?;
    let engine = Engine::load(&options.library, &options.state.join("data"))?;
    let sessions = Arc::new(Sessions::open(engine, options.connections)?);
    let service = Service { sessions: Arc::clone(&sessions), inbox: inbox.into() };
    println!("listening on {}", options.listen);
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = terminated.recv() => break,
            _ = interrupted.recv() => break,
        };
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, as a rule: others end meanwhile.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        // Small answers would wait for the client's acknowledgement otherwise.
        if let Err(error) = stream.set_nodelay(true) {
            eprintln!("{error}");
        }
        let (service, door, watcher) = (service.clone(), options.door.clone(), graceful.watcher());
        tokio::spawn(async move {
            let Some(stream) = door.let_in(stream).await else { return };
            let connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(
                TokioIo::new(stream),
                service_fn(move |request| {
                    let service = service.clone();
                    async move { Ok::<_, std::convert::Infallible>(service.answer(request).await) }
                }),
            );
            // A client that went away: nobody is left to tell.
            drop(watcher.watch(connection).await);
        });
    }
    drop(listener);
    let drained = async {
        graceful.shutdown().await;
        sessions.shutdown().await
    };
    match tokio::time::timeout(DRAIN_MAX, drained).await {
        Ok(true) => {}
        Ok(false) => return Err("the engine did not stop by itself".to_owned()),
        Err(_) => return Err("statements still ran when the server was told to stop".to_owned()),
    }
    println!("stopped");
    Ok(())
}

fn empty_folder(path: &Path) -> std::io::Result<PathBuf> {
    if path.exists() {
        std::fs::remove_dir_all(path)?;
    }
    std::fs::create_dir_all(path)?;
    path.canonicalize()
}
