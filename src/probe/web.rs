//! CamCOPS's own web server, behind Apache: its login page.

#[cfg(test)]
use super::http::MARKS;
use super::http::{Page, Request};
use super::site::SiteAddress;
use super::{Address, Answer, Cause, Patience, Trouble, connect_to, io_trouble};
use crate::layout::Layout;
use crate::settings::{Bind, Settings};
use std::time::Duration;
use tokio::net::UnixStream;

/// What a tablet asks that has never been here.
const TABLET: Request<'_> = Request {
    method: "POST",
    path: "/api",
    header: "",
    form: "operation=check_device_registered&device=camcops-provision&camcops_version=2.4.23",
};
/// What it is answered, and that takes a look into the database.
const REFUSED: &str = "error:Unregistered device";
/// The web server of an instance.
#[derive(Debug, Clone)]
pub(crate) struct WebAddress {
    /// Where it listens.
    pub(crate) address: Address,
    /// The same where it serves HTTPS itself.
    pub(crate) encrypted: Option<SiteAddress>,
    /// Its unit or program, for messages.
    pub(crate) service: String,
}

impl WebAddress {
    /// What the settings of a site say, with its main name and the file of its certificate.
    pub(crate) fn of(settings: &Settings, layout: &Layout, name: &str, certificate: &str) -> WebAddress {
        let own_https = settings.web.own_https();
        WebAddress {
            encrypted: own_https.map(|_| SiteAddress::of(settings, layout, name, certificate)),
            address: match settings.web.bind {
                Bind::Socket => Address::Socket(layout.socket.clone()),
                Bind::Tcp(address) => {
                    Address::Tcp { host: address.ip().to_string(), port: address.port(), setting: "web.bind" }
                }
            },
            service: format!("camcops-server@{}", layout.slug),
        }
    }

    /// Asks for the login page once.
    ///
    /// CamCOPS opens a session for each visitor without a cookie; its housekeeping removes them.
    pub(crate) async fn answers(&self, patience: Duration) -> Result<Answer, Trouble> {
        // The path of the site is Apache's business: behind it the page is always here.
        let page = self.page(Request::get("/login"), patience).await?;
        self.judged(&page)
    }

    /// Asks once for what tablets ask for: one that is not registered is told so.
    pub(crate) async fn serves_tablets(&self, patience: Duration) -> Result<(), Trouble> {
        let page = self.page(TABLET, patience).await?;
        if page.status() == Some(200) && page.0.contains(REFUSED) {
            return Ok(());
        }
        Err(Trouble::new(
            Cause::Other,
            &self.address.to_string(),
            format_args!("CamCOPS does not answer tablets correctly; see the log of {}", self.service),
        ))
    }

    async fn page(&self, request: Request<'_>, patience: Duration) -> Result<Page, Trouble> {
        let place = self.address.to_string();
        #[cfg(test)]
        if let Some(answer) = played(request, &place) {
            return answer;
        }
        if let Some(site) = &self.encrypted {
            return site.ask(request, patience).await;
        }
        let patience = Patience::new(patience);
        let page = match &self.address {
            Address::Socket(path) => {
                let stream = patience.bears_io(&place, UnixStream::connect(path)).await?;
                patience.bears(request.send("localhost", stream)).await
            }
            Address::Tcp { host, port, setting } => {
                let stream = connect_to(&place, host, *port, setting, patience).await?;
                patience.bears(request.send("localhost", stream)).await
            }
        };
        match page {
            Ok(page) => page.map_err(|why| io_trouble(&place, &why)),
            Err(_) => Err(Trouble::new(
                Cause::Silent,
                &place,
                format_args!(
                    "no page within {}; all its workers may be busy: see the log of {}",
                    patience, self.service
                ),
            )),
        }
    }

    fn judged(&self, page: &Page) -> Result<Answer, Trouble> {
        let tell = |cause, text: String| Err(Trouble::new(cause, &self.address.to_string(), text));
        match page.status() {
            _ if page.is_login() => Ok(Answer { product: "CamCOPS".into(), version: None }),
            Some(code @ 500..) => tell(
                Cause::Other,
                format!(
                    "CamCOPS fails to show its login page ({code}); is the database running? See the log of {}",
                    self.service
                ),
            ),
            Some(code) => tell(
                Cause::SomethingElse,
                format!("what answers there ({code}) is not CamCOPS's login page; check web.bind"),
            ),
            None => tell(Cause::SomethingElse, "what answers there is not a web server; check web.bind".into()),
        }
    }
}

/// The page that a case has in place of a web server.
#[cfg(test)]
fn played(request: Request<'_>, place: &str) -> Option<Result<Page, Trouble>> {
    let text = format!("{place}: {} {} HTTP/1.0", request.method, request.path);
    let refused = |_, said: String| Trouble::new(Cause::Other, place, said);
    let answer = super::played("http", &text, place, refused)?;
    Some(answer.map(|answer| match answer.product.as_str() {
        "" => Page(format!("HTTP/1.0 200 OK\r\n\r\n{}", MARKS.join(" "))),
        page => Page(page.replace('\n', "\r\n")),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    const PAGE: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<title>CamCOPS</title><form>\
        <input type=\"hidden\" name=\"csrf_token\" value=\"x\"/><input type=\"password\" name=\"password\"/></form>";

    fn asked(answer: &'static str) -> Result<Answer, Trouble> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let endpoint = WebAddress {
            address: Address::Socket(path.to_string_lossy().into_owned()),
            encrypted: None,
            service: "camcops-server@camcops".into(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let result = runtime.block_on(endpoint.answers(Duration::from_secs(5)));
        assert!(server.join().unwrap().starts_with("GET /login HTTP/1.0\r\n"));
        result
    }

    #[test]
    fn only_the_login_page_counts() {
        assert_eq!(asked(PAGE).unwrap().product, "CamCOPS");
        let cause = |answer| asked(answer).unwrap_err().cause;
        assert_eq!(cause("HTTP/1.1 200 OK\r\n\r\nCamCOPS: Page not found!"), Cause::SomethingElse);
        assert_eq!(cause("HTTP/1.1 404 Not Found\r\n\r\n"), Cause::SomethingElse);
        assert_eq!(cause("HTTP/1.1 500 Internal Server Error\r\n\r\n"), Cause::Other);
        assert_eq!(cause("220 mail.example.org ESMTP\r\n"), Cause::SomethingElse);
        assert_eq!(cause(""), Cause::Busy);
    }
}
