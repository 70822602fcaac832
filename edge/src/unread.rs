//! What of a body nobody has read when the answer is there.
//!
//! A refusal does not need the body, but the client is still sending it. To close the connection
//! then (hyper does) loses the next request on it, and may take the refusal away with it (RFC 9112,
//! section 9.6). So the rest is read and forgotten before the answer goes out; when it is too long or
//! comes too slowly, the answer says that the connection ends.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::response::Response;
use bytes::Bytes;
use http::HeaderValue;
use http::header::CONNECTION;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// Read and forgotten at most. A longer rest takes more than a new connection does.
const BYTES_MAX: usize = 1 << 20;

/// How long the rest may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Takes back a body that was not read to its end.
#[derive(Clone, Default)]
pub(crate) struct Unread(Arc<Mutex<Option<Incoming>>>);

/// A body that gives back what nobody has read of it.
pub(crate) struct Lent {
    /// `None` once its end was read.
    body: Option<Incoming>,
    back: Unread,
}

impl Unread {
    pub(crate) fn lend(&self, body: Incoming) -> Lent {
        Lent { body: Some(body), back: self.clone() }
    }

    /// Reads what was given back, and announces the end of the connection when it does not get to
    /// the end of it.
    pub(crate) async fn finish(self, response: &mut Response) {
        let left = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(body) = left else { return };
        if !matches!(tokio::time::timeout(PATIENCE, skip(body)).await, Ok(true)) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

/// Whether its end was reached.
async fn skip(mut body: Incoming) -> bool {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += match &frame {
            Ok(frame) => frame.data_ref().map_or(0, Bytes::len),
            Err(_) => return false,
        };
        if bytes > BYTES_MAX {
            return false;
        }
    }
    true
}

impl Body for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) {
            *self.back.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        }
    }
}
