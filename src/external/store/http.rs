//! Published files over HTTP and HTTPS.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use reqwest::header::{
    CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, IF_RANGE, LAST_MODIFIED, RANGE,
};
use reqwest::{Client, Method, Response, StatusCode};
use tokio::sync::OnceCell;

use super::{Head, Piece, Rest, Store, TEXT, Take};
use crate::external::{Class, Error, Result};

/// How long a server may take to take up a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// How long it may be silent.
const SILENCE: Duration = Duration::from_secs(60);

/// Any server of the web.
#[derive(Debug, Default)]
pub struct Http {
    mirror: Option<String>,
    client: OnceCell<Client>,
}

fn error(operation: &'static str, url: &str, class: Class, detail: impl std::fmt::Display) -> Error {
    Error::new("the image store", operation, url, class, detail)
}

/// A failure of the network in its own last words.
fn network(operation: &'static str, url: &str, failed: &reqwest::Error) -> Error {
    let mut root: &dyn std::error::Error = failed;
    while let Some(deeper) = root.source() {
        root = deeper;
    }
    error(operation, url, Class::Unreachable, root)
}

/// What a status means; `None` where it is a good one.
fn refusal(operation: &'static str, url: &str, status: StatusCode) -> Option<Error> {
    let (class, hint) = match status {
        status if status.is_success() => return None,
        StatusCode::NOT_FOUND | StatusCode::GONE => (
            Class::NotFound,
            "published images are removed after a time: the catalogue names the version that is wanted",
        ),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            (Class::Denied, "S3 answers so too where there is no such file: look at the address")
        }
        StatusCode::TOO_MANY_REQUESTS => (Class::Busy, "try again later"),
        status if status.is_server_error() => (Class::Unreachable, "try again later"),
        _ => (Class::Rejected, "look at the address"),
    };
    Some(error(operation, url, class, format!("it answered {status}")).hint(hint))
}

fn word(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// The mark of a file by which it can be gone on with: a strong tag, else its time.
fn validator(headers: &HeaderMap) -> Option<String> {
    let strong = word(headers, ETAG).filter(|tag| !tag.starts_with("W/"));
    strong.or_else(|| word(headers, LAST_MODIFIED)).map(str::to_owned)
}

/// `bytes 100-199/1000` is (100, 1000).
fn range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()))
}

impl Http {
    /// One that asks `mirror` (a scheme, a host, maybe a folder) instead of the hosts of the catalogue, where one is given
    /// (`KMT_IMAGE_MIRROR`).
    pub fn new(mirror: Option<String>) -> Http {
        Http { mirror: mirror.map(|mirror| mirror.trim_end_matches('/').to_owned()), client: OnceCell::new() }
    }

    /// The address that is asked.
    fn address(&self, url: &str) -> String {
        let path = url.split_once("://").and_then(|(_, rest)| rest.split_once('/'));
        match (&self.mirror, path) {
            (Some(mirror), Some((_, path))) => format!("{mirror}/{path}"),
            _ => url.to_owned(),
        }
    }

    async fn client(&self) -> Result<&Client> {
        self.client
            .get_or_try_init(|| async {
                // Whoever came first has installed one: all the same.
                let _ = rustls::crypto::ring::default_provider().install_default();
                let client = Client::builder().connect_timeout(CONNECT).read_timeout(SILENCE);
                let client = client.user_agent(concat!("kmt-run/", env!("CARGO_PKG_VERSION")));
                client.build().map_err(|failed| network("use", "the web", &failed))
            })
            .await
    }

    async fn ask(&self, method: Method, url: &str, rest: &Rest) -> Result<Response> {
        let mut request = self.client().await?.request(method, self.address(url));
        if let (from @ 1.., Some(mark)) = (rest.from, &rest.validator) {
            request = request.header(RANGE, format!("bytes={from}-")).header(IF_RANGE, mark);
        }
        let answer = request.send().await.map_err(|failed| network("fetch", url, &failed))?;
        if let Some(refused) = refusal("fetch", url, answer.status()) {
            return Err(refused);
        }
        match word(answer.headers(), CONTENT_TYPE) {
            Some(kind) if kind.starts_with("text/html") => Err(web_page(url)),
            _ => Ok(answer),
        }
    }
}

/// A page where a file was wanted.
fn web_page(url: &str) -> Error {
    error("fetch", url, Class::Unintelligible, "it answered with a web page")
        .hint("a proxy or a login stands between: look at the address in a browser")
}

/// What the headers of an answer say of its bytes.
fn head(url: &str, answer: &Response) -> Result<Head> {
    let headers = answer.headers();
    let validator = validator(headers);
    if answer.status() != StatusCode::PARTIAL_CONTENT {
        return Ok(Head { from: 0, total: answer.content_length(), validator });
    }
    let (from, total) = word(headers, CONTENT_RANGE)
        .and_then(range)
        .ok_or_else(|| error("fetch", url, Class::Unintelligible, "it sent a part and did not say which"))?;
    Ok(Head { from, total, validator })
}

#[async_trait]
impl Store for Http {
    async fn text(&self, url: &str) -> Result<String> {
        let mut bytes = Vec::new();
        let mut pieces = self.ask(Method::GET, url, &Rest::default()).await?.bytes_stream();
        while let Some(piece) = pieces.next().await {
            bytes.extend_from_slice(&piece.map_err(|failed| network("fetch", url, &failed))?);
            if bytes.len() > TEXT {
                return Err(error("fetch", url, Class::Unintelligible, "it is far too long for a text"));
            }
        }
        if bytes.trim_ascii_start().starts_with(b"<") {
            return Err(web_page(url));
        }
        String::from_utf8(bytes).map_err(|_| error("fetch", url, Class::Unintelligible, "it is no text"))
    }

    async fn size(&self, url: &str) -> Result<Option<u64>> {
        let answer = self.ask(Method::HEAD, url, &Rest::default()).await?;
        // Of an answer without a body, the size is in the header alone.
        Ok(word(answer.headers(), reqwest::header::CONTENT_LENGTH).and_then(|size| size.parse().ok()))
    }

    async fn fetch(&self, url: &str, rest: &Rest, take: Take<'_>) -> Result<()> {
        let answer = self.ask(Method::GET, url, rest).await?;
        let mut give =
            |piece: Piece<'_>| take(piece).map_err(|failed| Error::io("this machine", "keep", url, &failed));
        let head = head(url, &answer)?;
        give(Piece::Head(&head))?;
        let (mut pieces, mut came) = (answer.bytes_stream(), head.from);
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|failed| network("fetch", url, &failed))?;
            came += piece.len() as u64;
            give(Piece::Bytes(&piece))?;
        }
        match head.total {
            Some(total) if came < total => Err(error(
                "fetch",
                url,
                Class::Unreachable,
                format!("it ended after {came} of {total} bytes"),
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_understood() {
        assert_eq!(range("bytes 100-199/1000"), Some((100, Some(1000))));
        assert_eq!(range("bytes 100-199/*"), Some((100, None)));
        assert_eq!(range("lines 1-2/3"), None);
        let mut headers = HeaderMap::new();
        headers.insert(LAST_MODIFIED, "Fri, 27 Nov 2026 10:00:00 GMT".parse().unwrap());
        headers.insert(ETAG, "W/\"weak\"".parse().unwrap());
        assert_eq!(validator(&headers).unwrap(), "Fri, 27 Nov 2026 10:00:00 GMT");
        headers.insert(ETAG, "\"strong\"".parse().unwrap());
        assert_eq!(validator(&headers).unwrap(), "\"strong\"");
    }

    #[test]
    fn a_mirror_takes_the_place_of_the_host() {
        let url = "https://host.example/kernel/rootfs/a.xz";
        assert_eq!(
            Http::new(Some("http://127.0.0.1:1/".to_owned())).address(url),
            "http://127.0.0.1:1/kernel/rootfs/a.xz"
        );
        assert_eq!(Http::new(None).address(url), url);
    }

    #[test]
    fn each_refusal_has_its_class_and_a_hint() {
        let class = |status| refusal("fetch", "u", status).map(|error| (error.class, error.hint.is_some()));
        assert_eq!(class(StatusCode::PARTIAL_CONTENT), None);
        assert_eq!(class(StatusCode::NOT_FOUND), Some((Class::NotFound, true)));
        assert_eq!(class(StatusCode::FORBIDDEN), Some((Class::Denied, true)));
        assert_eq!(class(StatusCode::BAD_GATEWAY), Some((Class::Unreachable, true)));
        assert_eq!(class(StatusCode::RANGE_NOT_SATISFIABLE), Some((Class::Rejected, true)));
    }

    /// A server on loopback that gives each connection what `answer` makes of its request.
    fn server(answer: fn(&str) -> String) -> String {
        use std::io::{Read as _, Write as _};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (mut asked, mut buffer) = (String::new(), [0; 1024]);
                while !asked.contains("\r\n\r\n") {
                    match stream.read(&mut buffer) {
                        Ok(read @ 1..) => asked.push_str(&String::from_utf8_lossy(&buffer[..read])),
                        _ => break,
                    }
                }
                // Whoever asked may be gone.
                let _ = stream.write_all(answer(&asked.to_lowercase()).as_bytes());
            }
        });
        url
    }

    /// What comes of a file: where it began, its mark, its bytes; and how the transfer ended.
    async fn fetched(url: &str, rest: &Rest) -> (Option<Head>, Vec<u8>, Result<()>) {
        let (mut head, mut bytes) = (None, Vec::new());
        let mut take = |piece: Piece<'_>| {
            match piece {
                Piece::Head(found) => head = Some(found.clone()),
                Piece::Bytes(more) => bytes.extend_from_slice(more),
            }
            Ok(())
        };
        let done = Http::default().fetch(url, rest, &mut take).await;
        (head, bytes, done)
    }

    #[tokio::test]
    async fn a_file_is_gone_on_with_only_where_the_server_says_so() {
        let url = server(|asked| {
            let close = "ETag: \"one\"\r\nConnection: close\r\n\r\n";
            match asked.contains("range: bytes=4-") && asked.contains("if-range: \"one\"") {
                true => format!(
                    "HTTP/1.1 206 P\r\nContent-Range: bytes 4-9/10\r\nContent-Length: 6\r\n{close}456789"
                ),
                false => format!("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n{close}0123456789"),
            }
        });
        let rest = |mark: &str| Rest { from: 4, validator: Some(mark.to_owned()) };
        let (head, bytes, done) = fetched(&url, &rest("\"one\"")).await;
        done.unwrap();
        let whole = Head { from: 4, total: Some(10), validator: Some("\"one\"".to_owned()) };
        assert_eq!((head, bytes.as_slice()), (Some(whole.clone()), &b"456789"[..]));
        for other in [rest("\"two\""), Rest { from: 4, validator: None }, Rest::default()] {
            let (head, bytes, _) = fetched(&url, &other).await;
            assert_eq!((head.unwrap().from, bytes.len()), (0, 10), "{other:?}");
        }
    }

    #[tokio::test]
    async fn what_is_cut_off_may_be_asked_for_again_and_a_page_may_not() {
        let url = server(|asked| match asked.split(' ').nth(1).unwrap_or_default() {
            "/cut" => "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123".to_owned(),
            "/page" => {
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>".to_owned()
            }
            "/sum" => "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n <Error>".to_owned(),
            _ => "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n".to_owned(),
        });
        let (_, bytes, done) = fetched(&format!("{url}/cut"), &Rest::default()).await;
        assert_eq!((bytes.as_slice(), done.unwrap_err().class), (&b"0123"[..], Class::Unreachable));
        let (_, _, done) = fetched(&format!("{url}/page"), &Rest::default()).await;
        assert_eq!(done.unwrap_err().class, Class::Unintelligible);
        let store = Http::default();
        assert_eq!(store.text(&format!("{url}/sum")).await.unwrap_err().class, Class::Unintelligible);
        assert_eq!(store.size(&format!("{url}/no")).await.unwrap_err().class, Class::Denied);
        assert_eq!(store.size("http://127.0.0.1:1/no").await.unwrap_err().class, Class::Unreachable);
    }
}
