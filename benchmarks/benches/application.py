"""application: servers that many know, and their clients, in one instance: on its own loopback, so
that no network between instances is in the figure.
"""

from __future__ import annotations

from benchmarks.benches.tools import PID, Load, Tools

REDIS_PORT, NGINX_PORT = 7379, 7080  # a plain process has the host's loopback
REDIS = (
    f"redis-server --bind 127.0.0.1 --port {REDIS_PORT} --save '' --appendonly no "
    f"--loglevel warning --pidfile {PID}"
)
REDIS_CLIENT = f"redis-benchmark -h 127.0.0.1 -p {REDIS_PORT} -c 8 -n 20000 -q"
NGINX = 'nginx -p "$HERE/load" -c nginx.conf -e stderr'
ROWS = 200_000

NGINX_CONF = f"""\
daemon off;
user root root;
worker_processes 1;
pid pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp; uwsgi_temp_path tmp;
    scgi_temp_path tmp;
    server {{ listen 127.0.0.1:{NGINX_PORT}; root www; }}
}}
"""
INSERT = f"""\
CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT, c INTEGER);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
INSERT INTO t SELECT i, 'row ' || i, i * 7919 % 1009 FROM n;
"""
QUERY = "SELECT sum(x) FROM (SELECT c, count(*) * max(length(b)) AS x FROM t GROUP BY c);"
TIMER = ".timer on\n"


class Application(Tools):
    name = rows = "application"
    title = "redis, nginx and sqlite, by redis-benchmark, wrk and the clock of sqlite's shell"
    metric = "application.redis.get"
    unit = "requests/s"
    direction = "higher"
    files = {
        "/load/nginx.conf": NGINX_CONF,
        "/load/www/index.html": "x" * 1023 + "\n",
        "/load/insert.sql": TIMER + INSERT,
        "/load/query.sql": INSERT + TIMER + QUERY,
    }
    loads = (
        Load(
            "redis.set", "redis-server redis-tools", f"{REDIS_CLIENT} -t set",
            r"SET: ([\d.]+) requests per second", "requests/s", "higher", server=REDIS,
        ),
        Load(
            "redis.get", "redis-server redis-tools", f"{REDIS_CLIENT} -t get",
            r"GET: ([\d.]+) requests per second", "requests/s", "higher", server=REDIS,
        ),
        Load(
            "nginx.get_1k", "nginx wrk",
            f"wrk --threads 1 --connections 8 --duration 1s http://127.0.0.1:{NGINX_PORT}/",
            r"(?s)^(?!.*Non-2xx).*Requests/sec: +([\d.]+)", "requests/s", "higher", server=NGINX,
        ),
        Load(
            "sqlite.insert", "sqlite3", 'sqlite3 -init "$HERE/load/insert.sql" :memory: .quit',
            r"(?s).*Run Time: real ([\d.]+)", "s", "lower",
        ),
        Load(
            "sqlite.query", "sqlite3", 'sqlite3 -init "$HERE/load/query.sql" :memory: .quit',
            r"(?s).*Run Time: real ([\d.]+)", "s", "lower",
        ),
    )  # fmt: skip


BENCH = Application()
