//! The HTTP thread: status, metrics, and `leveret top`, which asks it.
//!
//! It has a small runtime of its own and reads from the shards only through their reports.

pub(crate) mod metrics;
pub(crate) mod responses;
#[cfg(test)]
mod sample_reports;
pub(crate) mod snapshot;
pub(crate) mod top;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::thread::Builder;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::serve::Listener;
use leveret_ring::Waker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tracing::{error, warn};

use crate::http::metrics::Figures;
use crate::http::responses::Responses;
use crate::listeners::Purpose;
use crate::log::Rate;
use crate::shared_state::SharedState;
use crate::shared_state::shard_reports::ShardAnswer;

/// HTTP connections per listener: enough for a few people, scrapers and probes. More are closed at
/// once.
const CONNECTIONS_MAX: usize = 64;

/// How long an HTTP connection may live, idle or not. Scrapers connect again; a client cannot block
/// others for long by holding connections.
const CONNECTION_LIFETIME: Duration = Duration::from_mins(1);

/// The pause after a failed accept, which usually means that there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const TEXT: &str = "text/plain; charset=utf-8";
/// The text format of Prometheus.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";

/// Serves all `listeners` from one new thread. Does nothing if there are none.
pub(crate) fn spawn(
    listeners: Vec<(TcpListener, Purpose)>,
    responses: Responses,
    wakers: Vec<Waker>,
    shared: Arc<SharedState>,
) -> io::Result<()> {
    if listeners.is_empty() {
        return Ok(());
    }
    let state = Arc::new(HttpState { responses, wakers, shared });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Builder::new().name("http".to_owned()).spawn(move || {
        runtime.block_on(async {
            let mut served = Vec::new();
            for (listener, purpose) in listeners {
                served.push(tokio::spawn(serve(listener, purpose, Arc::clone(&state))));
            }
            for task in served {
                match task.await {
                    Ok(Ok(())) => {}
                    Ok(Err(failure)) => error!("HTTP ended: {failure}"),
                    Err(failure) => error!("HTTP ended: {failure}"),
                }
            }
        });
    })?;
    Ok(())
}

async fn serve(listener: TcpListener, purpose: Purpose, state: Arc<HttpState>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = Limited {
        listener: tokio::net::TcpListener::from_std(listener)?,
        open: Arc::new(AtomicUsize::new(0)),
        failures: Rate::default(),
    };
    axum::serve(listener, router(purpose, state)).await
}

fn router(purpose: Purpose, state: Arc<HttpState>) -> Router {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/metrics/per-object", get(metrics_per_object));
    let router = match purpose {
        Purpose::Metrics => router.route("/", get(metrics_index)),
        Purpose::Http | Purpose::Amqp => router.route("/", get(index)).route("/api/top", get(top)),
    };
    router.with_state(state)
}

/// What the request handlers need.
struct HttpState {
    responses: Responses,
    wakers: Vec<Waker>,
    shared: Arc<SharedState>,
}

impl HttpState {
    async fn request(&self, with_queues: bool) -> Vec<ShardAnswer> {
        self.shared.shard_reports.request(&self.wakers, with_queues).await
    }

    /// The answers with queues, unless there are too many queues.
    async fn request_with_queues(&self) -> Vec<ShardAnswer> {
        let answers = self.request(false).await;
        if Responses::lists_queues(&answers) { self.request(true).await } else { answers }
    }

    fn figures(&self) -> Figures {
        let resources = &self.shared.resources;
        Figures {
            connections_refused: self.shared.placement.refused(),
            memory_limit_bytes: resources.memory_limit_bytes.load(Ordering::Relaxed),
            disk_free_bytes: resources.disk_free_bytes.load(Ordering::Relaxed),
        }
    }
}

async fn index(State(state): State<Arc<HttpState>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, TEXT)], state.responses.index(&state.request(false).await))
}

async fn metrics_index() -> impl IntoResponse {
    ([(CONTENT_TYPE, TEXT)], "Leveret metrics for Prometheus: /metrics, /metrics/per-object\n")
}

async fn metrics(State(state): State<Arc<HttpState>>) -> impl IntoResponse {
    let answers = state.request(false).await;
    ([(CONTENT_TYPE, METRICS)], state.responses.metrics(&answers, state.figures()))
}

async fn metrics_per_object(State(state): State<Arc<HttpState>>) -> impl IntoResponse {
    let answers = state.request_with_queues().await;
    ([(CONTENT_TYPE, METRICS)], state.responses.metrics_per_object(&answers, state.figures()))
}

async fn top(RawQuery(query): RawQuery, State(state): State<Arc<HttpState>>) -> impl IntoResponse {
    let queues = queues_asked(query.as_deref());
    let answers =
        if queues > 0 { state.request_with_queues().await } else { state.request(false).await };
    ([(CONTENT_TYPE, JSON)], state.responses.top(&answers, queues))
}

/// The parameter `queues=N`: 0 to 200, or 20 if it is missing.
fn queues_asked(query: Option<&str>) -> usize {
    let fields = query.unwrap_or_default().split('&');
    let asked = fields.filter_map(|field| field.strip_prefix("queues=")).next_back();
    asked.and_then(|number| number.parse().ok()).unwrap_or(20).min(200)
}

/// A listener with a limit on open connections, which axum does not offer.
struct Limited {
    listener: tokio::net::TcpListener,
    open: Arc<AtomicUsize>,
    failures: Rate,
}

impl Listener for Limited {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    if let Some(connection) = Connection::admit(stream, &self.open) {
                        return (connection, address);
                    }
                }
                Err(failure) => {
                    if let Some(withheld) = self.failures.admit() {
                        warn!(withheld, "HTTP cannot accept for now: {failure}");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that is counted and has a limited lifetime.
struct Connection {
    stream: TcpStream,
    open: Arc<AtomicUsize>,
    end: Pin<Box<Sleep>>,
}

impl Connection {
    fn admit(stream: TcpStream, open: &Arc<AtomicUsize>) -> Option<Self> {
        if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            open.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let end = Box::pin(tokio::time::sleep(CONNECTION_LIFETIME));
        Some(Self { stream, open: Arc::clone(open), end })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.end.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.end.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_queues_is_read_and_bounded() {
        assert_eq!(queues_asked(None), 20);
        assert_eq!(queues_asked(Some("queues=0")), 0);
        assert_eq!(queues_asked(Some("a=b&queues=7&c")), 7);
        assert_eq!(queues_asked(Some("queues=5000")), 200);
        assert_eq!(queues_asked(Some("queues=-1")), 20);
    }

    #[test]
    fn connections_above_the_limit_are_closed_and_places_come_back() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let open = Arc::new(AtomicUsize::new(0));
            let mut held = Vec::new();
            for _ in 0..CONNECTIONS_MAX {
                let stream = TcpStream::connect(address).await.unwrap();
                held.push(Connection::admit(stream, &open).unwrap());
            }
            let one_more = TcpStream::connect(address).await.unwrap();
            assert!(Connection::admit(one_more, &open).is_none());
            held.pop();
            let again = TcpStream::connect(address).await.unwrap();
            assert!(Connection::admit(again, &open).is_some());
        });
    }
}
