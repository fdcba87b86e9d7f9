"""A local server that speaks the part of the Hub's protocol that `hf upload` needs: repositories, branches, regular files
inside of commits, large files by git-lfs. Everything that arrives is kept, commit by commit."""
import base64
import contextlib
import hashlib
import http.server
import json
import re
import threading

TOKEN = "hf_localTestToken0123456789"


class Hub:
    """What the server knows. `refuse` is a status that answers every commit; `hold` keeps commits waiting."""

    def __init__(self):
        self.commits = []   # {"message", "revision", "repo", "files": {path: bytes}}
        self.repos = {}     # name -> the request that made it
        self.branches = {"main"}
        self.large = {}     # sha256 -> bytes
        self.failures = []  # what went wrong in the server itself, or was not expected
        self.refuse = None
        self.hold = threading.Event()
        self.hold.set()
        self.arrived = threading.Event()  # a commit has been asked for

    def files(self, revision="main"):
        """The repository after all commits."""
        merged = {}
        for commit in self.commits:
            if commit["revision"] == revision:
                merged |= commit["files"]
        return merged


def handler_for(hub):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def answer(self, content, status=200, **headers):
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

        def body(self):
            if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
                parts = []
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def handle_one(self, method):
            try:
                body = self.body()
                path, _, _ = self.path.partition("?")
                is_large = path.startswith("/large/")
                if not is_large and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    return self.answer({"error": "Invalid credentials"}, 401)
                for pattern, function in self.ROUTES.get(method, {}).items():
                    if found := re.fullmatch(pattern, path):
                        return function(self, body, *found.groups())
                if method != "GET" or "agent-harnesses" not in path:
                    hub.failures.append(f"not known: {method} {self.path}")
                return self.answer({"error": "not found"}, 404)
            except (BrokenPipeError, ConnectionResetError):
                return None  # a client that was stopped
            except Exception as error:  # noqa: BLE001: the test must see it
                hub.failures.append(repr(error))
                raise

        def do_GET(self):
            self.handle_one("GET")

        def do_POST(self):
            self.handle_one("POST")

        def do_PUT(self):
            self.handle_one("PUT")

        def endpoint(self):
            return f"http://{self.headers['Host']}"

        def whoami(self, _):
            self.answer({"type": "user", "name": "someone", "orgs": []})

        def create_repo(self, body):
            request = json.loads(body)
            name = f"{request.get('organization') or 'someone'}/{request['name']}"
            is_new = name not in hub.repos
            if is_new:
                hub.repos[name] = request
            self.answer({"url": f"{self.endpoint()}/{name}", "name": name}, 200 if is_new else 409)

        def info(self, _, repo, revision):
            if revision not in hub.branches:
                return self.answer({"error": "no such revision"}, 404, X_Error_Code="RevisionNotFound")
            self.answer({"id": repo, "sha": "0" * 40, "siblings": [], "tags": [], "private": False, "downloads": 0, "likes": 0})

        def make_branch(self, _, repo, branch):
            hub.branches.add(branch)
            self.answer({})

        def validate_yaml(self, _):
            self.answer({"warnings": [], "errors": []})

        def preupload(self, body, repo, revision):
            files = json.loads(body)["files"]
            self.answer({"files": [{"path": file["path"], "shouldIgnore": False,
                                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular"} for file in files]})

        def lfs_batch(self, body, repo):
            objects = []
            for item in json.loads(body)["objects"]:
                entry = {"oid": item["oid"], "size": item["size"]}
                if item["oid"] not in hub.large:
                    entry["actions"] = {"upload": {"href": f"{self.endpoint()}/large/{item['oid']}", "header": {}}}
                objects.append(entry)
            self.answer({"transfer": "basic", "objects": objects})

        def put_large(self, body, oid):
            if hashlib.sha256(body).hexdigest() != oid:
                hub.failures.append(f"{oid}: other bytes arrived")
            hub.large[oid] = body
            self.answer({})

        def commit(self, body, repo, revision):
            hub.arrived.set()
            hub.hold.wait(120)
            if hub.refuse:
                return self.answer({"error": "refused by the test"}, hub.refuse)
            commit = {"repo": repo, "revision": revision, "files": {}}
            for line in body.splitlines():
                entry = json.loads(line)
                value = entry["value"]
                if entry["key"] == "header":
                    commit["message"] = value["summary"]
                elif entry["key"] == "file":
                    commit["files"][value["path"]] = base64.b64decode(value["content"])
                else:
                    commit["files"][value["path"]] = hub.large[value["oid"]]
            hub.commits.append(commit)
            self.answer({"success": True, "commitUrl": f"{self.endpoint()}/{repo}/commit/{'0' * 40}", "commitOid": "0" * 40,
                         "hookOutput": ""})

        ROUTES = {
            "GET": {r"/api/whoami-v2": whoami, r"/api/models/([^/]+/[^/]+)/revision/(.+)": info},
            "POST": {r"/api/repos/create": create_repo, r"/api/validate-yaml": validate_yaml,
                     r"/api/models/([^/]+/[^/]+)/branch/(.+)": make_branch,
                     r"/api/models/([^/]+/[^/]+)/preupload/(.+)": preupload,
                     r"/api/models/([^/]+/[^/]+)/commit/(.+)": commit,
                     r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch": lfs_batch},
            "PUT": {r"/large/(\w+)": put_large},
        }

    return Handler


@contextlib.contextmanager
def serve():
    """Yields the Hub and the environment in which `hf` speaks to it and to nothing else."""
    hub = Hub()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler_for(hub))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub, {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}"}
    finally:
        hub.hold.set()
        server.shutdown()
        thread.join()
        server.server_close()
