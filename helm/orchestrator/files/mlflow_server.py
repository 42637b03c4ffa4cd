"""MLflow behind basic auth: `migrate` brings its database up to date, `serve ...` runs the server.

Passwords come from the environment and go to a file of this pod, so that no process shows them.
"""

import os
import sys
from pathlib import Path

from sqlalchemy.exc import IntegrityError

AUTH_INI = "/tmp/mlflow-auth.ini"


def write_auth_config(path: str) -> None:
    uri = os.environ["MLFLOW_BACKEND_STORE_URI"].replace("%", "%%")  # configparser's own sign
    lines = ["[mlflow]", f"database_uri = {uri}"]
    lines += [f"default_permission = {os.environ['DEFAULT_PERMISSION']}"]
    os.umask(0o077)
    Path(path).write_text("\n".join(lines) + "\n")


def migrate() -> None:
    from mlflow.db import commands
    from mlflow.exceptions import MlflowException
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

    uri = os.environ["MLFLOW_BACKEND_STORE_URI"]
    commands.main(["upgrade", uri], standalone_mode=False)
    store = SqlAlchemyStore()
    store.init_db(uri)  # migrates the tables of users
    name, password = os.environ["RUNS_USERNAME"], os.environ["RUNS_PASSWORD"]
    try:
        store.create_user(name, password)
    except MlflowException as error:
        if not isinstance(error.__cause__, IntegrityError):
            raise
        store.update_user(name, password=password)  # the Secret is what counts
    print("the database is up to date, and the runs' user is there")


ini = os.environ.setdefault("MLFLOW_AUTH_CONFIG_PATH", AUTH_INI)
write_auth_config(ini)
if sys.argv[1] == "migrate":
    migrate()
else:
    server = ["mlflow", "server", "--app-name", "basic-auth", *sys.argv[2:]]
    os.execvp(sys.executable, [sys.executable, "-m", *server])
