//! Memory for batches in progress: bounded, whatever the number of clients.

use std::time::Duration;

use edge::Problem;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use metering::Unavailable;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::BATCH_BYTES_MAX;

/// Bodies of batches in progress, in KiB: 16 of the largest, or many small ones. Their events take
/// about as much again. Too little makes large batches wait in line, too much lets clients who send
/// slowly hold the machine's memory.
const KIBIBYTES_MAX: usize = 128 * 1024;

/// How long a batch waits for room before its client is told to come back.
const PATIENCE: Duration = Duration::from_secs(10);

/// Room for bodies that are read, decoded and recorded.
pub(crate) struct Room {
    kibibytes: Semaphore,
    patience: Duration,
}

impl Room {
    pub(crate) fn new() -> Self {
        Self { kibibytes: Semaphore::new(KIBIBYTES_MAX), patience: PATIENCE }
    }

    /// Waits for room, before anything of the body is read; first come, first served.
    ///
    /// # Errors
    /// 503 when none became free in time.
    pub(crate) async fn take(&self, headers: &HeaderMap) -> Result<SemaphorePermit<'_>, Problem> {
        let taking = self.kibibytes.acquire_many(kibibytes_of(headers));
        match tokio::time::timeout(self.patience, taking).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => {
                Err(Unavailable::new("batch_room", "too many large batches at once").into())
            }
        }
    }
}

/// What a body may need: what it announces, or the most when it comes compressed or in chunks.
fn kibibytes_of(headers: &HeaderMap) -> u32 {
    let announced = headers.get(CONTENT_LENGTH).filter(|_| !headers.contains_key(CONTENT_ENCODING));
    let announced = announced.and_then(|length| length.to_str().ok()?.parse().ok());
    let bytes = announced.unwrap_or(BATCH_BYTES_MAX).min(BATCH_BYTES_MAX);
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge::Code;
    use http::HeaderValue;

    fn announcing(bytes: u64) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from(bytes))])
    }

    #[tokio::test(start_paused = true)]
    async fn large_batches_wait_for_room_and_are_told_when_there_is_none() {
        let room = Room::new();
        let mut compressed = announcing(100);
        compressed.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        let mut taken = vec![];
        for _ in 0..16 {
            taken.push(room.take(&compressed).await.unwrap());
        }
        let full = room.take(&announcing(1)).await.unwrap_err();
        assert_eq!(full.code(), Code::Unavailable);
        taken.pop();
        let mut small = vec![];
        for _ in 0..8 * 1024 {
            small.push(room.take(&announcing(1000)).await.unwrap());
        }
        assert_eq!(room.take(&HeaderMap::new()).await.unwrap_err().code(), Code::Unavailable);
    }
}
