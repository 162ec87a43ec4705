//! The monitor: it asks for its password, takes the right one, and listens on this machine only.

use super::http::Request;
use super::{Address, Answer, Cause, Patience, Trouble, connect_to};
use crate::base::secret::Secret;
use crate::certificate::encode_base64;
use crate::host::processes;
use std::time::Duration;

/// The monitor of an instance.
#[derive(Debug, Clone)]
pub(crate) struct SupervisorSocket {
    /// Its port on the loopback address.
    pub(crate) port: u16,
    /// Who may log in.
    pub(crate) user: String,
    pub(crate) password: Secret,
}

impl SupervisorSocket {
    /// What a case has in place of a monitor.
    #[cfg(test)]
    fn played(&self, place: &str) -> Option<Result<Answer, Trouble>> {
        let refused = |_, said: String| Trouble::new(Cause::Other, place, said);
        let text = format!("{place}: the monitor, as {}", self.user);
        super::played("http", &text, place, refused)
    }

    /// Asks it once without and once with the password.
    pub(crate) async fn answers(&self, patience: Duration) -> Result<Answer, Trouble> {
        let place = Address::Tcp { host: "127.0.0.1".into(), port: self.port, setting: "monitor.port" }.to_string();
        #[cfg(test)]
        if let Some(answer) = self.played(&place) {
            return answer;
        }
        let tell = |cause, text: String| Err(Trouble::new(cause, &place, text));
        let patience = Patience::new(patience);
        match self.status(&place, "", patience).await? {
            Some(401) => {}
            Some(code @ 200..=399) => {
                return tell(
                    Cause::SomethingElse,
                    format!(
                        "it answers {code} without a password; check monitor.port, and that nothing else sets the monitor's options"
                    ),
                );
            }
            _ => {
                return tell(Cause::SomethingElse, "what answers there is not the monitor; check monitor.port".into());
            }
        }
        let login = format!("{}:{}", self.user, self.password.reveal());
        let login = format!("Authorization: Basic {}\r\n", encode_base64(login.as_bytes()));
        match self.status(&place, &login, patience).await? {
            Some(200) => {}
            Some(401) => {
                return tell(Cause::Denied, "it refuses the password from the settings".into());
            }
            _ => return tell(Cause::Other, "it fails to show its page".into()),
        }
        // The kernel walks through all connections for that.
        let listeners = tokio::task::spawn_blocking(processes::list_listeners).await;
        let open: Vec<String> = listeners
            .ok()
            .and_then(Result::ok)
            .unwrap_or_default()
            .into_iter()
            .map(|listener| listener.address)
            .filter(|address| address.port() == self.port && !address.ip().is_loopback())
            .map(|address| address.to_string())
            .collect();
        if !open.is_empty() {
            return tell(
                Cause::SomethingElse,
                format!("it can be reached from other machines too, at {}", open.join(", ")),
            );
        }
        Ok(Answer { product: "Flower".into(), version: None })
    }

    async fn status(&self, place: &str, header: &str, patience: Patience) -> Result<Option<u16>, Trouble> {
        let stream = connect_to(place, "127.0.0.1", self.port, "monitor.port", patience).await?;
        let request = Request { header, ..Request::get("/") };
        Ok(patience.bears_io(place, request.send("localhost", stream)).await?.status())
    }
}
