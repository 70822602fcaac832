//! `multipart/form-data`: how the official client sends a statement with parameters.

use hyper::HeaderMap;
use hyper::header::CONTENT_TYPE;

use crate::request::Exception;

/// The boundary when the body is such a form.
pub fn boundary(headers: &HeaderMap) -> Option<String> {
    let content_type = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let rest = content_type.strip_prefix("multipart/form-data")?;
    let (_, boundary) = rest.split_once("boundary=")?;
    let boundary = boundary.split(';').next().unwrap_or_default().trim().trim_matches('"');
    Some(boundary.to_owned())
}

/// Names and values, in their order.
pub fn fields(form: &[u8], boundary: &str) -> Result<Vec<(String, String)>, Exception> {
    // The first boundary has no line break before it; give it one.
    let form = [b"\r\n", form].concat();
    let delimiter = format!("\r\n--{boundary}");
    let mut fields = Vec::new();
    let mut rest = after(&form, delimiter.as_bytes()).ok_or_else(malformed)?;
    while !rest.starts_with(b"--") {
        let content = after(rest, b"\r\n\r\n").ok_or_else(malformed)?;
        let head = String::from_utf8_lossy(&rest[..rest.len() - content.len()]).into_owned();
        if head.contains("filename=") {
            return Err("Code: 48. DB::Exception: external tables are not supported by the local \
                        server. (NOT_IMPLEMENTED)"
                .into());
        }
        let name = head.split("name=\"").nth(1).and_then(|name| name.split('"').next());
        let next = after(content, delimiter.as_bytes()).ok_or_else(malformed)?;
        let value = &content[..content.len() - next.len() - delimiter.len()];
        fields.push((
            name.ok_or_else(malformed)?.to_owned(),
            String::from_utf8_lossy(value).into_owned(),
        ));
        rest = next;
    }
    Ok(fields)
}

fn after<'a>(text: &'a [u8], mark: &[u8]) -> Option<&'a [u8]> {
    let at = text.windows(mark.len()).position(|window| window == mark)?;
    text.get(at + mark.len()..)
}

fn malformed() -> Exception {
    "Code: 36. DB::Exception: the multipart form is malformed. (BAD_ARGUMENTS)".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_gives_its_fields_as_they_were_written() {
        let form = b"--b\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\nSELECT {a:String}\r\n\r\n\
                     --b\r\nContent-Disposition: form-data; name=\"param_a\"\r\n\r\n\r\n--b--\r\n";
        assert_eq!(
            fields(form, "b"),
            Ok(vec![
                ("query".to_owned(), "SELECT {a:String}\r\n".to_owned()),
                ("param_a".to_owned(), String::new()),
            ])
        );
    }

    #[test]
    fn a_form_that_breaks_off_is_refused() {
        for form in [&b""[..], b"--b", b"--b\r\nname=\"query\"", b"--b\r\nname=\"q\"\r\n\r\n1"] {
            assert!(fields(form, "b").is_err(), "{form:?}");
        }
    }
}
