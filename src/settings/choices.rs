//! Settings that are one of a few words.

use super::value::choice;

choice! {
    /// A version of CamCOPS that this program can install.
    Version {
        /// 2.4.23.
        V2_4_23 = "2.4.23",
        /// 2.4.24.
        V2_4_24 = "2.4.24",
    }
}

impl Version {
    /// The newest one.
    pub(crate) const NEWEST: Version = Version::V2_4_24;
}

choice! {
    /// Where CamCOPS and its packages come from.
    Source {
        /// The Python package index.
        Pypi = "pypi",
        /// A directory of files.
        Wheelhouse = "wheelhouse",
        /// A bundle.
        Bundle = "bundle",
    }
}

choice! {
    /// What installs Python packages.
    Installer {
        /// uv where it can be had, else pip.
        Auto = "auto",
        /// uv.
        Uv = "uv",
        /// pip.
        Pip = "pip",
    }
}

choice! {
    /// The account that the services run as.
    AccountUser {
        /// The web server's account.
        Auto = "auto",
        /// A dedicated account.
        Camcops = "camcops",
    }
}

choice! {
    /// Where a database or a broker is.
    Mode {
        /// On this machine, set up by this program.
        Local = "local",
        /// Somewhere else, set up by somebody else.
        External = "external",
    }
}

choice! {
    /// How the connection to an external database is protected.
    DatabaseTls {
        /// Not at all.
        Off = "off",
        /// Encrypted, with whatever certificate the database shows.
        Required = "required",
        /// Encrypted, with a certificate that the given authority signed.
        Verify = "verify",
    }
}

choice! {
    /// The web server in front of CamCOPS.
    Frontend {
        /// Apache, with a site of its own.
        Apache = "apache",
        /// None that this program sets up.
        None = "none",
    }
}

choice! {
    /// The program that serves CamCOPS to the web server.
    Backend {
        /// Gunicorn: several processes.
        Gunicorn = "gunicorn",
        /// CherryPy: one process with threads.
        Cherrypy = "cherrypy",
    }
}

choice! {
    /// Where the certificate of the site comes from.
    TlsMode {
        /// Made by this program and signed by itself.
        SelfSigned = "self-signed",
        /// Files that the administrator looks after.
        Files = "files",
        /// Issued by an authority that speaks ACME, and renewed, by certbot.
        Certbot = "certbot",
    }
}

choice! {
    /// What starts and watches the services.
    ServiceManager {
        /// systemd where it runs, else supervisor.
        Auto = "auto",
        /// systemd.
        Systemd = "systemd",
        /// supervisor.
        Supervisor = "supervisor",
    }
}

choice! {
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
}

choice! {
    /// What a site is for.
    Environment {
        /// Real patients.
        Production = "production",
        /// Trying things out.
        Test = "test",
    }
}

choice! {
    /// Where the services log to.
    LogMode {
        /// The journal.
        Journal = "journal",
        /// Files that are rotated.
        File = "file",
    }
}

choice! {
    /// What the timer removes after each backup.
    Pruning {
        /// Nothing.
        Never = "never",
        /// What is beyond so many days, weeks and months.
        Generations = "generations",
        /// After 31 days all but those of the first of each month.
        FirstOfMonth = "first-of-month",
    }
}
