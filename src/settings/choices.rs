//! Settings that are one of a few words.

use super::value::choices;

choices! {
    /// Whether known flaws of the packages that CamCOPS pins are ended by newer ones.
    Hardening {
        /// As far as this program knows.
        Auto = "auto",
        Off = "off",
    }

    /// Where CamCOPS and its packages come from.
    Source { Pypi = "pypi", Wheelhouse = "wheelhouse", Bundle = "bundle", Path = "path" }

    /// What installs Python packages: `Auto` is uv where it can be had, else pip.
    Installer { Auto = "auto", Uv = "uv", Pip = "pip" }

    /// What makes PDF documents: `Auto` is wkhtmltopdf where it can be had, else WeasyPrint.
    PdfChoice { Auto = "auto", Wkhtmltopdf = "wkhtmltopdf", Weasyprint = "weasyprint" }

    /// The account that the services run as: `Auto` is the web server's.
    AccountUser { Auto = "auto", Camcops = "camcops" }

    /// Where a database or a broker is: on this machine and set up by this program, or somewhere else by somebody else.
    Mode { Local = "local", External = "external" }

    /// How the connection to an external database is protected: `Required` takes whatever certificate the database shows.
    DatabaseTls { Off = "off", Required = "required", Verify = "verify" }

    /// The web server that this program sets up in front of CamCOPS.
    Frontend { Apache = "apache", None = "none" }

    /// The program that serves CamCOPS to the web server.
    Backend {
        /// Several processes.
        Gunicorn = "gunicorn",
        /// One process with threads.
        Cherrypy = "cherrypy",
    }

    /// Where the certificate of the site comes from.
    TlsMode {
        /// Made by this program and signed by itself.
        SelfSigned = "self-signed",
        /// Signed by an authority of the site's own, which is trusted once.
        LocalCa = "local-ca",
        /// Files that the administrator looks after.
        Files = "files",
        /// Issued by an authority that speaks ACME, and renewed, by certbot.
        Certbot = "certbot",
    }

    /// What starts and watches the services: `Auto` is systemd where that runs, else supervisor.
    ServiceManager { Auto = "auto", Systemd = "systemd", Supervisor = "supervisor" }

    /// One of the services of an instance.
    Service {
        /// The web application.
        Server = "server",
        /// The workers that do background tasks.
        Workers = "workers",
        /// The scheduler of background tasks.
        Scheduler = "scheduler",
        /// The monitor of background tasks.
        Monitor = "monitor",
    }

    /// What a site is for: real patients, or trying things out.
    Environment { Production = "production", Test = "test" }

    /// Where the services log to: `File` means files that are rotated.
    LogMode { Journal = "journal", File = "file" }

    /// What the timer removes after each backup.
    Pruning {
        Never = "never",
        /// What is beyond so many days, weeks and months.
        Generations = "generations",
        /// After 31 days all but those of the first of each month.
        FirstOfMonth = "first-of-month",
    }
}
