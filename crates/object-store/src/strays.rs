//! Removes from listings the keys that `object_store` cannot represent as paths: empty segments,
//! `.`, `..` and control characters. It refuses a whole page for one such key, which a mistake such
//! as `aws s3 cp x s3://bucket/run//x` leaves, and then the run could not be opened. No key of this
//! engine is one of them, so they are removed before it reads the page, and remembered for
//! [`ObjectStoreEngine::strays`](crate::ObjectStoreEngine::strays).

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};
use object_store::path::Path;
use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The entries of a page, and the element of each with its key: of S3 and Google, and of Azure.
const ENTRIES: [(&str, &str); 4] =
    [("Contents", "Key"), ("CommonPrefixes", "Prefix"), ("Blob", "Name"), ("BlobPrefix", "Name")];

/// Limit of remembered keys.
const MOST_REMEMBERED: usize = 1000;

/// The crate's own HTTP clients, with a filter for the listings that they return; and the keys that
/// were removed. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Strays(Arc<Mutex<BTreeSet<String>>>);

impl Strays {
    /// The keys that were removed since the last call.
    pub(crate) fn take(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.lock())
    }

    fn remember(&self, keys: Vec<String>) {
        let mut strays = self.lock();
        let room = MOST_REMEMBERED.saturating_sub(strays.len());
        strays.extend(keys.into_iter().take(room));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpConnector for Strays {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Skip(ReqwestConnector::default().connect(options)?, self.clone())))
    }
}

#[derive(Debug)]
struct Skip(HttpClient, Strays);

#[async_trait]
impl HttpService for Skip {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let is_listing = is_listing(request.uri().query().unwrap_or(""));
        let response = self.0.execute(request).await?;
        if !is_listing || !response.status().is_success() {
            return Ok(response);
        }
        let (parts, body) = response.into_parts();
        let bytes = body.bytes().await?;
        if !is_page(&bytes) {
            // Read as a page without entries, it would be an empty run.
            let error = io::Error::other("the answer to a listing is no page of one");
            return Err(HttpError::new(HttpErrorKind::Decode, error));
        }
        let mut keys = Vec::new();
        let skipped = std::str::from_utf8(&bytes).ok().and_then(|page| skip(page, &mut keys));
        self.1.remember(keys);
        let body = skipped.map_or_else(|| bytes.clone().into(), Into::into);
        Ok(HttpResponse::from_parts(parts, body))
    }
}

/// Whether an answer has the root element of a page: of S3 and Google, or of Azure.
fn is_page(body: &[u8]) -> bool {
    let has = |root: &str| body.windows(root.len()).any(|window| window == root.as_bytes());
    has("<ListBucketResult") || has("<EnumerationResults")
}

fn is_listing(query: &str) -> bool {
    query.split('&').any(|pair| matches!(pair, "list-type=2" | "comp=list"))
}

/// The page without entries whose keys are no paths, which are added to `skipped_keys`; None when
/// it has none of them.
fn skip(page: &str, skipped_keys: &mut Vec<String>) -> Option<String> {
    let skipped = ENTRIES.iter().fold(page.to_owned(), |page, (entry, name)| {
        let (open, close) = (format!("<{entry}>"), format!("</{entry}>"));
        let (mut kept, mut rest) = (String::with_capacity(page.len()), &page[..]);
        while let Some((before, from)) = rest.split_once(&open) {
            // A truncated page is left for the reader to refuse.
            let Some((inside, after)) = from.split_once(&close) else { break };
            kept += before;
            if is_path(inside, name, entry.contains("Prefix")) {
                kept = kept + &open + inside + &close;
            } else {
                skipped_keys.push(key(inside, name).map_or_else(|| inside.to_owned(), unescape));
            }
            rest = after;
        }
        kept + rest
    });
    (skipped.len() < page.len()).then_some(skipped)
}

/// Whether an entry's key is the path of an object or, of a prefix, of a folder. Azure marks names
/// that XML does not allow: those are not.
fn is_path(entry: &str, name: &str, is_prefix: bool) -> bool {
    match key(entry, name) {
        // A folder's marker has the path of the object without the slash.
        Some(key) => (is_prefix || !key.ends_with('/')) && Path::parse(unescape(key)).is_ok(),
        None => !entry.contains(&format!("<{name} ")),
    }
}

fn key<'e>(entry: &'e str, name: &str) -> Option<&'e str> {
    let (_, rest) = entry.split_once(&format!("<{name}>"))?;
    Some(rest.split_once("</")?.0)
}

/// The text that XML stands for. Text that is no reference stays.
fn unescape(text: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, after)) = rest.split_once('&') {
        out += before;
        let reference = after.split_once(';').and_then(|(name, after)| Some((character(name)?, after)));
        rest = match reference {
            Some((c, after)) => {
                out.push(c);
                after
            }
            None => {
                out.push('&');
                after
            }
        };
    }
    out + rest
}

fn character(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = name.strip_prefix('#')?;
            let number = match number.strip_prefix('x') {
                Some(hex) => u32::from_str_radix(hex, 16),
                None => number.parse(),
            };
            char::from_u32(number.ok()?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_are_no_paths_are_left_out_and_others_stay() {
        let entry = |key: &str| format!("<Contents><Key>{key}</Key><Size>1</Size></Contents>");
        for key in
            ["run//x", "run//", "run/", "run/./x", "run/../x", "run/x&#x1;y", "run/x&#10;y", "run/x\u{1}y"]
        {
            let page = format!("<A>{}{}{}</A>", entry("run/a"), entry(key), entry("run/b&amp;c"));
            let kept = format!("<A>{}{}</A>", entry("run/a"), entry("run/b&amp;c"));
            let mut skipped = vec![];
            assert_eq!(skip(&page, &mut skipped).as_deref(), Some(&kept[..]), "{key:?}");
            assert_eq!(skipped, [unescape(key)]);
        }
        for key in ["run/x", "run/a b", "run/ü", "run/%2F", "run/a\\b", "run/&lt;&unknown;&"] {
            assert_eq!(skip(&entry(key), &mut vec![]), None, "{key:?}");
        }
        let prefixes = "<CommonPrefixes><Prefix>run//</Prefix></CommonPrefixes>";
        assert_eq!(skip(prefixes, &mut vec![]).as_deref(), Some(""));
        let prefixes = "<CommonPrefixes><Prefix>run/</Prefix></CommonPrefixes>";
        assert_eq!(skip(prefixes, &mut vec![]), None);
    }

    #[test]
    fn azures_names_are_looked_at_as_well() {
        let page = "<Blobs><Blob><Name>a</Name></Blob><Blob><Name>a//b</Name></Blob>\
            <Blob><Name Encoded=\"true\">a%01</Name></Blob><BlobPrefix><Name>a/./</Name></BlobPrefix></Blobs>";
        assert_eq!(skip(page, &mut vec![]).as_deref(), Some("<Blobs><Blob><Name>a</Name></Blob></Blobs>"));
    }

    #[test]
    fn cut_pages_and_other_texts_stay_as_they_are() {
        for page in ["", "<Contents>", "<Contents><Key>a//b", "<Contents></Contents>", "no XML & none"] {
            assert_eq!(skip(page, &mut vec![]), None);
        }
    }
}
