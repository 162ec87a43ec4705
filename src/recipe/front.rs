//! What a web server that is not ours needs to stand in front of the site.

use super::render::{Format, Renderer};
use super::view::{BELIEVED_HEADERS, believed_headers, template_view, url_host};
use crate::base::error::Exit;
use crate::cli::FrontServer;
use crate::settings::Frontend;
use crate::site::{ExistingState, Site};
use anyhow::Result;
use serde_json::{Value, json};

/// The configuration for it, by the settings of the site: on another machine where Apache serves the site here, on this one
/// where nothing does.
pub(crate) fn render_front(site: &Site, found: &ExistingState, server: FrontServer) -> Result<String> {
    if server == FrontServer::Iis && site.settings().web.frontend == Frontend::None {
        return Err(Exit::Settings.because(
            "web.frontend: \"none\" lets CamCOPS listen on this machine alone, where there is no IIS; set it to \"apache\", and IIS passes requests on to that",
        ));
    }
    if site.settings().web.own_https().is_some() {
        return Err(Exit::Settings.because(
            "web.bind: CamCOPS serves HTTPS itself there; set it to \"socket\" or a loopback address for a web server in front of it",
        ));
    }
    let mut view = template_view(site, found);
    view["front"] = view_of_front(site);
    let (name, format, template) = match server {
        FrontServer::Nginx => {
            ("front-nginx.conf.hbs", Format::Apache, include_str!("../../templates/front-nginx.conf.hbs"))
        }
        FrontServer::Apache => {
            ("front-apache.conf.hbs", Format::Apache, include_str!("../../templates/front-apache.conf.hbs"))
        }
        FrontServer::Haproxy => {
            ("front-haproxy.cfg.hbs", Format::Plain, include_str!("../../templates/front-haproxy.cfg.hbs"))
        }
        FrontServer::Iis => ("front-iis.config.hbs", Format::Xml, include_str!("../../templates/front-iis.config.hbs")),
    };
    Renderer::default().render(name, format, template, &view)
}

/// What their templates can say besides.
pub fn view_of_front(site: &Site) -> Value {
    let web = &site.settings().web;
    let names = site.served_names();
    let host = url_host(&names[0]);
    let with_port = format!("{host}:{}", web.https_port.get());
    let seconds = u64::from(web.timeout_s.get());
    let path = web.path.prefix();
    let pattern = path.trim_start_matches('/').replace('.', r"\.");
    json!({
        "remote": web.frontend == Frontend::Apache,
        "names": names.iter().map(|name| url_host(name)).collect::<Vec<_>>(),
        "aliases": names[1..].iter().map(|name| url_host(name)).collect::<Vec<_>>(),
        "patterns": names.iter().map(|name| name_pattern(name)).collect::<Vec<_>>(),
        "file": names[0].replace(':', "-"),
        "authority": if web.https_port.get() == 443 { &host } else { &with_port },
        "authority_with_port": with_port,
        "certificate": format!("/etc/ssl/certs/{}-site.pem", site.layout.slug),
        "location": if path.is_empty() { "/" } else { path },
        "match": if path.is_empty() { ".*".to_owned() } else { format!("^{pattern}(/.*)?$") },
        "believed": BELIEVED_HEADERS.iter().filter(|name| !SET_HERE.contains(name)).collect::<Vec<_>>(),
        "others": believed_headers().into_iter().filter(|name| name != "X-Forwarded-For").collect::<Vec<_>>(),
        "timeout": format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
    })
}

/// A name or an address in a regular expression, as all of these read it: none has a backslash to lose.
fn name_pattern(name: &str) -> String {
    let marked = |c: char| if ".[]".contains(c) { format!("[{c}]") } else { c.to_string() };
    url_host(&name.to_lowercase()).chars().map(marked).collect()
}

/// What nginx is told to set to a value; all others it leaves out.
const SET_HERE: [&str; 5] =
    ["X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Proto", "X-Script-Name"];
