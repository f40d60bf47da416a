//! S3's operations as responses: put, get, head, delete, copy, list, and multipart uploads, with
//! the XML and status of each. Path style, no signatures.

use crate::http::{Body, Request, Response, decode};
use crate::objects::{Object, Objects, Put, Upload};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Keys in one page of a listing.
const PAGE: usize = 1000;

/// Applies a request.
pub(crate) fn answer(objects: &Objects, bucket: &str, request: Request) -> io::Result<Response> {
    let in_bucket = request.path.strip_prefix(&format!("/{bucket}"));
    let Some(key) = in_bucket.filter(|rest| rest.is_empty() || rest.starts_with('/')) else {
        return Ok(error(404, "NoSuchBucket"));
    };
    let has_key = !key.trim_matches('/').is_empty();
    let upload = request.query("uploadId").is_some();
    match request.method.as_str() {
        "GET" if !has_key => Ok(list(objects, &request)),
        "GET" | "HEAD" => Ok(get(objects, &request)),
        "PUT" if upload => Ok(put_part(objects, request)),
        "PUT" if request.header("x-amz-copy-source").is_some() => copy(objects, &request),
        "PUT" => put(objects, request),
        "POST" if request.query("uploads").is_some() => Ok(start_upload(objects, &request)),
        "POST" if upload => complete(objects, &request),
        "DELETE" if upload => Ok(abort(objects, &request)),
        "DELETE" => objects.delete(&request.path).map(|_| Response::new(204)),
        _ => Ok(error(501, "NotImplemented")),
    }
}

pub(crate) fn error(status: u16, code: &str) -> Response {
    Response::xml(status, format!("<Error><Code>{code}</Code><Message>{code}</Message></Error>"))
}

fn metadata(request: &Request) -> BTreeMap<String, String> {
    let own = request.headers.iter().filter(|(name, _)| name.starts_with("x-amz-meta-"));
    own.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn is_create(request: &Request) -> bool {
    request.header("if-none-match") == Some("*")
}

fn put_response(put: &Put) -> Response {
    match put {
        Put::Done(etag) => Response::new(200).header("ETag", etag),
        Put::Exists => error(412, "PreconditionFailed"),
    }
}

fn put(objects: &Objects, mut request: Request) -> io::Result<Response> {
    let bytes = Arc::new(std::mem::take(&mut request.body));
    Ok(put_response(&objects.put(&request.path, bytes, metadata(&request), is_create(&request))?))
}

fn copy(objects: &Objects, request: &Request) -> io::Result<Response> {
    let from =
        format!("/{}", decode(request.header("x-amz-copy-source").unwrap_or("")).trim_start_matches('/'));
    let Some(object) = objects.state().objects.get(&from).cloned() else {
        return Ok(error(404, "NoSuchKey"));
    };
    let put = objects.put(&request.path, object.bytes, object.metadata, is_create(request))?;
    Ok(match put {
        Put::Done(etag) => {
            Response::xml(200, format!("<CopyObjectResult><ETag>{etag}</ETag></CopyObjectResult>"))
        }
        Put::Exists => put_response(&put),
    })
}

fn get(objects: &Objects, request: &Request) -> Response {
    let Some(object) = objects.state().objects.get(&request.path).cloned() else {
        return error(404, "NoSuchKey");
    };
    let len = object.bytes.len();
    let wanted = request.header("range").and_then(|range| range.strip_prefix("bytes="));
    let response = match wanted.map(|wanted| range(wanted, len)) {
        None => Response { body: Body::Part(object.bytes.clone(), 0..len), ..Response::new(200) },
        Some(None) => return error(416, "InvalidRange").header("Content-Range", format!("bytes */{len}")),
        Some(Some((from, to))) => {
            let part = Response { body: Body::Part(object.bytes.clone(), from..to), ..Response::new(206) };
            part.header("Content-Range", format!("bytes {from}-{}/{len}", to - 1))
        }
    };
    let dated = response.header("ETag", &object.etag).header("Last-Modified", http_date(object.modified));
    object.metadata.iter().fold(dated, |response, (name, value)| response.header(name, value))
}

/// `first-last`, `first-` or `-count`, as start and end.
fn range(text: &str, len: usize) -> Option<(usize, usize)> {
    let (from, to) = text.split_once('-')?;
    let (from, to) = match (from.parse::<usize>(), to.parse::<usize>()) {
        (Ok(from), Ok(last)) => (from, last.saturating_add(1).min(len)),
        (Ok(from), Err(_)) => (from, len),
        (Err(_), Ok(count)) => (len.saturating_sub(count), len),
        _ => return None,
    };
    (from < to).then_some((from, to))
}

fn list(objects: &Objects, request: &Request) -> Response {
    let bucket = format!("{}/", request.path.trim_end_matches('/'));
    let (prefix, delimiter) =
        (request.query("prefix").unwrap_or(""), request.query("delimiter").unwrap_or(""));
    let after = request.query("continuation-token").or(request.query("start-after")).unwrap_or("");
    let state = objects.state();
    let mut xml = String::new();
    let mut folders = BTreeSet::new();
    let mut count = 0;
    let mut last = "";
    let mut truncated = false;
    for (path, object) in &state.objects {
        let Some(key) = path.strip_prefix(&bucket).filter(|key| key.starts_with(prefix) && *key > after)
        else {
            continue;
        };
        if count == PAGE {
            truncated = true;
            break;
        }
        let rest = &key[prefix.len()..];
        match rest.split_once(delimiter) {
            Some((folder, _)) if !delimiter.is_empty() => {
                folders.insert(format!("{prefix}{folder}{delimiter}"));
            }
            _ => {
                xml += &contents(key, object);
                count += 1;
                last = key;
            }
        }
    }
    for folder in folders {
        let _ = write!(xml, "<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>", escaped(&folder));
    }
    let token =
        truncated.then(|| format!("<NextContinuationToken>{}</NextContinuationToken>", escaped(last)));
    let next = token.unwrap_or_default();
    Response::xml(
        200,
        format!("<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{next}{xml}</ListBucketResult>"),
    )
}

fn contents(key: &str, object: &Object) -> String {
    let (etag, size) = (object.etag.replace('"', "&quot;"), object.bytes.len());
    let (key, modified) = (escaped(key), iso_date(object.modified));
    format!(
        "<Contents><Key>{key}</Key><LastModified>{modified}</LastModified><ETag>{etag}</ETag><Size>{size}</Size></Contents>"
    )
}

/// Text in XML; control characters as S3 writes them.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            c if c.is_ascii_control() => drop(write!(out, "&#x{:x};", c as u32)),
            c => out.push(c),
        }
    }
    out
}

fn start_upload(objects: &Objects, request: &Request) -> Response {
    static COUNTER: AtomicU64 = AtomicU64::new(1);
    let id = format!("upload-{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
    let upload = Upload { path: request.path.clone(), metadata: metadata(request), ..Upload::default() };
    objects.state().uploads.insert(id.clone(), upload);
    Response::xml(
        200,
        format!("<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"),
    )
}

fn put_part(objects: &Objects, mut request: Request) -> Response {
    let body = Arc::new(std::mem::take(&mut request.body));
    let number = request.query("partNumber").and_then(|number| number.parse().ok()).unwrap_or(0);
    let mut state = objects.state();
    let Some(upload) = state.uploads.get_mut(request.query("uploadId").unwrap_or("")) else {
        return error(404, "NoSuchUpload");
    };
    upload.parts.insert(number, body);
    Response::new(200).header("ETag", format!("\"part-{number}\""))
}

fn complete(objects: &Objects, request: &Request) -> io::Result<Response> {
    let Some(upload) = objects.state().uploads.remove(request.query("uploadId").unwrap_or("")) else {
        return Ok(error(404, "NoSuchUpload"));
    };
    let parts: Vec<&[u8]> = upload.parts.values().map(|part| &part[..]).collect();
    let bytes = parts.concat();
    let put = objects.put(&upload.path, Arc::new(bytes), upload.metadata, is_create(request))?;
    Ok(match put {
        Put::Done(etag) => Response::xml(
            200,
            format!("<CompleteMultipartUploadResult><ETag>{etag}</ETag></CompleteMultipartUploadResult>"),
        ),
        Put::Exists => put_response(&put),
    })
}

fn abort(objects: &Objects, request: &Request) -> Response {
    match objects.state().uploads.remove(request.query("uploadId").unwrap_or("")) {
        Some(_) => Response::new(204),
        None => error(404, "NoSuchUpload"),
    }
}

/// Year, month, day, hour, minute, second, and the day of the week from Sunday.
fn civil(seconds: u64) -> ([u64; 6], usize) {
    // Howard Hinnant, "chrono-compatible low-level date algorithms": days to a date.
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    ([year, month, day, time / 3600, time / 60 % 60, time % 60], (days as usize + 4) % 7)
}

fn iso_date(seconds: u64) -> String {
    let ([year, month, day, hour, minute, second], _) = civil(seconds);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.000Z")
}

fn http_date(seconds: u64) -> String {
    const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let ([year, month, day, hour, minute, second], weekday) = civil(seconds);
    let (weekday, month) = (DAYS[weekday], MONTHS[month as usize - 1]);
    format!("{weekday}, {day:02} {month} {year} {hour:02}:{minute:02}:{second:02} GMT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(http_date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(iso_date(951_782_400), "2000-02-29T00:00:00.000Z");
    }

    #[test]
    fn ranges_are_those_of_http() {
        assert_eq!(range("0-3", 10), Some((0, 4)));
        assert_eq!(range("8-30", 10), Some((8, 10)));
        assert_eq!(range("4-", 10), Some((4, 10)));
        assert_eq!(range("-3", 10), Some((7, 10)));
        assert_eq!(range("-30", 10), Some((0, 10)));
        assert_eq!(range("10-12", 10), None);
        assert_eq!(range("-3", 0), None);
    }
}
