"""Shows what PyMySQL makes of a DB_URL and of the option file that it names.

Usage: option_file.py DB_URL...   Prints one JSON line per URL. Connects nowhere.
"""

import json
import sys

import pymysql
import sqlalchemy

for url in sys.argv[1:]:
    engine = sqlalchemy.create_engine(url)
    arguments = engine.dialect.create_connect_args(engine.url)[1]
    link = pymysql.connect(defer_connect=True, **arguments)
    context = getattr(link, "ctx", None)
    print(
        json.dumps(
            {
                "user": link.user,
                "password": link.password.decode("latin1"),
                "host": link.host,
                "port": link.port,
                "socket": link.unix_socket,
                "database": link.db,
                "charset": link.charset,
                "tls": link.ssl,
                "tls_required": link._ssl_required,
                "tls_verified": bool(context and context.verify_mode),
                "tls_host_checked": bool(context and context.check_hostname),
            }
        )
    )
