"""Prints what supervisor makes of its configuration: {group: {program: its values}}.

Usage: supervisor_programs.py FILE
"""

import json
import shlex
import sys

from supervisor.options import ServerOptions

options = ServerOptions()
options.realize(["-c", sys.argv[1]])
groups = {}
for group in options.process_group_configs:
    programs = groups.setdefault(group.name, {})
    for program in group.process_configs:
        programs[program.name] = {
            "words": shlex.split(program.command),
            "user": program.uid,
            "directory": program.directory,
            "autostart": program.autostart,
            "autorestart": str(program.autorestart.__name__)
            if isinstance(program.autorestart, type)
            else program.autorestart,
            "startsecs": program.startsecs,
            "stopwaitsecs": program.stopwaitsecs,
            "stopsignal": program.stopsignal.name,
            "stopasgroup": program.stopasgroup,
            "killasgroup": program.killasgroup,
            "environment": program.environment,
            "log": program.stdout_logfile,
        }
print(json.dumps(groups))
