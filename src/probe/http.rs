//! One request over a stream, and the whole answer to it.

use std::io::{self, ErrorKind};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The login page has some 20 kB.
const LARGEST_PAGE: u64 = 1 << 20;
/// What the login page has in every language. CamCOPS answers 200 to any address, so that the code alone says nothing.
pub(super) const MARKS: [&str; 3] = ["CamCOPS", "name=\"csrf_token\"", "name=\"password\""];

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    /// Further lines, each with its end.
    pub(crate) header: &'a str,
    /// What is sent along; empty for nothing.
    pub(crate) form: &'a str,
}

impl<'a> Request<'a> {
    pub(crate) fn get(path: &'a str) -> Request<'a> {
        Request { method: "GET", path, header: "", form: "" }
    }

    /// Sends it to the server of this name.
    ///
    /// HTTP/1.0, so that the page comes in one piece and its end is the end of the connection.
    pub(super) async fn send(self, host: &str, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<Page> {
        let Request { method, path, header, form } = self;
        let about_form = match form.is_empty() {
            true => String::new(),
            false => format!("Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n", form.len()),
        };
        let text = format!(
            "{method} {path} HTTP/1.0\r\nHost: {host}\r\nAccept: text/html, text/plain\r\nUser-Agent: camcops-provision\r\n{header}{about_form}\r\n{form}"
        );
        // Who does not want all of a large body may answer and hang up before it has come.
        let written = stream.write_all(text.as_bytes()).await;
        let mut page = Vec::new();
        let read = stream.take(LARGEST_PAGE).read_to_end(&mut page).await;
        if page.is_empty() {
            written?;
        }
        match read {
            // A server may cut the connection off as soon as all is sent.
            Err(why) if page.is_empty() => Err(why),
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(Page(String::from_utf8_lossy(&page).into_owned())),
        }
    }
}

/// A whole answer: header and body.
#[derive(Debug)]
pub(crate) struct Page(pub(crate) String);

impl Page {
    /// The status code; nothing where what answers is no web server.
    pub(crate) fn status(&self) -> Option<u16> {
        let (_, rest) = self.0.strip_prefix("HTTP/1.")?.split_once(' ')?;
        rest.get(..3)?.parse().ok()
    }

    /// Whether it only says that the page is to be had by HTTPS.
    pub(crate) fn redirects_to_https(&self) -> bool {
        let lines = self.0.lines().take_while(|line| !line.is_empty());
        let mut targets =
            lines.filter_map(|line| line.split_once(':')).filter(|(name, _)| name.eq_ignore_ascii_case("location"));
        matches!(self.status(), Some(301 | 302 | 303 | 307 | 308))
            && targets.next().is_some_and(|(_, target)| target.trim().starts_with("https://"))
    }

    /// Whether it is CamCOPS's login page.
    pub(crate) fn is_login(&self) -> bool {
        self.status() == Some(200) && MARKS.iter().all(|mark| self.0.contains(mark))
    }
}
