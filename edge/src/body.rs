//! Reads request bodies: bounded in size before and after decompression, and in time.

use std::io::Read;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH};
use http::{HeaderMap, HeaderValue};
use http_body_util::BodyExt;
use hyper::body::Body as _;

use crate::code::Code;
use crate::problem::Problem;

/// How long a body may take: a slow client holds a connection and its memory.
pub const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Compressed bodies from this size on are decoded on a thread for blocking work: shorter ones
/// take less time than the hop.
const BLOCKING_BYTES_MIN: usize = 32 * 1024;

/// 2^23 = 8 MiB, what RFC 8878 (section 3.1.1.1.2) asks decoders to support: larger windows
/// would let a few bytes ask for much memory.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

/// The decoded body: identity, gzip or zstd, at most `limit` bytes both before and after decoding.
///
/// # Errors
/// 413 `body_too_large`, 400 `malformed_encoding`, 415 for another encoding, 408 when the body does
/// not come within [`READ_TIMEOUT`].
pub async fn read(body: Body, headers: &HeaderMap, limit: usize) -> Result<Bytes, Problem> {
    let encoding = encoding_of(headers)?;
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    if announced
        .and_then(|length| length.parse::<u64>().ok())
        .is_some_and(|length| usize::try_from(length).map_or(true, |length| length > limit))
    {
        return Err(too_large(limit));
    }
    let collected = tokio::time::timeout(READ_TIMEOUT, collect(body, limit)).await;
    let bytes = collected.unwrap_or_else(|_| {
        Err(Problem::new(Code::RequestTimeout, "the body came too slowly")
            .with_header(CONNECTION, HeaderValue::from_static("close")))
    })?;
    if matches!(encoding, Encoding::Identity) {
        return Ok(bytes);
    }
    if bytes.len() < BLOCKING_BYTES_MIN {
        return decode(&encoding, &bytes, limit);
    }
    let decoded = tokio::task::spawn_blocking(move || decode(&encoding, &bytes, limit)).await;
    decoded.map_err(Problem::internal)?
}

fn encoding_of(headers: &HeaderMap) -> Result<Encoding, Problem> {
    let mut values = headers.get_all(CONTENT_ENCODING).iter();
    let Some(value) = values.next() else { return Ok(Encoding::Identity) };
    let named = value.to_str().map(|text| text.trim().to_ascii_lowercase());
    match named.as_deref() {
        Ok("identity" | "") if values.next().is_none() => Ok(Encoding::Identity),
        Ok("gzip" | "x-gzip") if values.next().is_none() => Ok(Encoding::Gzip),
        Ok("zstd") if values.next().is_none() => Ok(Encoding::Zstd),
        _ => Err(Problem::new(
            Code::UnsupportedMediaType,
            "the content encoding must be one of gzip, zstd, identity",
        )
        .with_header(ACCEPT_ENCODING, HeaderValue::from_static("gzip, zstd, identity"))),
    }
}

async fn collect(mut body: Body, limit: usize) -> Result<Bytes, Problem> {
    let mut first = Bytes::new();
    let mut all: Option<BytesMut> = None;
    while let Some(frame) = body.frame().await {
        let broken = |_| Problem::new(Code::MalformedEncoding, "the body could not be read");
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        let so_far = all.as_ref().map_or(first.len(), BytesMut::len);
        if so_far.saturating_add(data.len()) > limit {
            return Err(too_large(limit));
        }
        match &mut all {
            // Small bodies come in one piece: no copy.
            None if first.is_empty() => first = data,
            None => {
                let hint = usize::try_from(body.size_hint().lower()).unwrap_or(0).min(limit);
                let mut joined = BytesMut::with_capacity(so_far + data.len() + hint);
                joined.extend_from_slice(&first);
                joined.extend_from_slice(&data);
                all = Some(joined);
            }
            Some(joined) => joined.extend_from_slice(&data),
        }
    }
    Ok(all.map_or(first, BytesMut::freeze))
}

fn decode(encoding: &Encoding, bytes: &[u8], limit: usize) -> Result<Bytes, Problem> {
    match encoding {
        Encoding::Identity => Ok(Bytes::copy_from_slice(bytes)),
        Encoding::Gzip => read_at_most(flate2::read::MultiGzDecoder::new(bytes), limit),
        Encoding::Zstd => {
            let decoder =
                zstd::stream::read::Decoder::with_buffer(bytes).and_then(|mut decoder| {
                    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                    Ok(decoder)
                });
            read_at_most(decoder.map_err(Problem::internal)?, limit)
        }
    }
}

fn read_at_most(decoder: impl Read, limit: usize) -> Result<Bytes, Problem> {
    let mut decoded = Vec::new();
    let more_than_limit = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    decoder.take(more_than_limit).read_to_end(&mut decoded).map_err(|_| {
        Problem::new(Code::MalformedEncoding, "the body is not what its content encoding says")
    })?;
    if decoded.len() > limit {
        return Err(too_large(limit));
    }
    Ok(decoded.into())
}

fn too_large(limit: usize) -> Problem {
    Problem::new(
        Code::BodyTooLarge,
        format!("the body must have at most {limit} bytes, decoded too"),
    )
    .with_header(CONNECTION, HeaderValue::from_static("close"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn encoded(encoding: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_ENCODING, HeaderValue::from_static(encoding))])
    }

    async fn code(bytes: impl Into<Body>, headers: &HeaderMap, limit: usize) -> Code {
        read(bytes.into(), headers, limit).await.unwrap_err().code()
    }

    #[tokio::test]
    async fn every_encoding_gives_the_same_bytes() {
        let plain = b"tokens ".repeat(20_000);
        for (encoding, bytes) in [
            ("identity", plain.clone()),
            ("gzip", gzip(&plain)),
            ("ZSTD", zstd::encode_all(&*plain, 3).unwrap()),
        ] {
            let read = read(Body::from(bytes), &encoded(encoding), plain.len()).await.unwrap();
            assert!(read == plain, "{encoding}");
        }
    }

    #[tokio::test]
    async fn the_limit_holds_before_and_after_decoding() {
        let bomb = vec![0; 100_000];
        let length = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from(11u64))]);
        assert_eq!(code("", &length, 10).await, Code::BodyTooLarge);
        assert_eq!(code("12345678901", &HeaderMap::new(), 10).await, Code::BodyTooLarge);
        assert_eq!(code(gzip(&bomb), &encoded("gzip"), 99_999).await, Code::BodyTooLarge);
        let small = zstd::encode_all(&*bomb, 3).unwrap();
        assert_eq!(code(small, &encoded("zstd"), 99_999).await, Code::BodyTooLarge);
    }

    #[tokio::test]
    async fn broken_and_unknown_encodings_are_told() {
        let mut broken = gzip(b"some text");
        broken.truncate(broken.len() - 4);
        assert_eq!(code(broken, &encoded("gzip"), 99).await, Code::MalformedEncoding);
        assert_eq!(code("plain", &encoded("zstd"), 99).await, Code::MalformedEncoding);
        assert_eq!(code("plain", &encoded("br"), 99).await, Code::UnsupportedMediaType);
        assert_eq!(code("plain", &encoded("gzip, gzip"), 99).await, Code::UnsupportedMediaType);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_given_up() {
        let never = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        assert_eq!(code(never, &HeaderMap::new(), 99).await, Code::RequestTimeout);
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_are_a_clients_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for encoding in [Encoding::Gzip, Encoding::Zstd] {
                if let Err(problem) = decode(&encoding, &bytes, 1000) {
                    prop_assert!(problem.code().status().is_client_error());
                }
            }
        }
    }
}
