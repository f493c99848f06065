"""A stand-in for a kube-apiserver (1.36) with RBAC, since none can be installed where the tests
run. It follows the public API for what a node asks: listing the pods of a namespace by label
selector in pages, and watching them from a version on, with bookmarks. It asks for a bearer token,
and speaks TLS when it is given a certificate.

It is stricter: unknown query values are refused. It is as nasty: versions are gone, by status and
by event; events come in pieces, together, twice, or not at all any more; connections end within
one; pages expire; tokens are replaced.

What it does not do: anything but GET of pods; set-based selectors (only `a=b`, `a==b` and `a!=b`),
field selectors, streaming lists, other media types, admission, a watch cache that lags.
"""

import base64
import json
import re
import socket
import time

from serving import Refused, StandIn

QUERY_VALUES = {
    "labelSelector", "limit", "continue", "resourceVersion", "resourceVersionMatch", "watch", "timeoutSeconds",
    "allowWatchBookmarks",
}
REASONS = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 410: "Expired",
           429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable"}


def status(code, message):
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
            "reason": REASONS[code], "code": code}


def refused(code, message):
    return Refused(code, status(code, message))


def number(query, name):
    if not re.fullmatch(r"\d*", query.get(name, "")):
        raise refused(400, f'strconv.ParseInt: parsing "{query[name]}": invalid syntax')
    return int(query.get(name) or 0)


def selector(text):
    terms = []
    for term in filter(None, text.split(",")):
        found = re.fullmatch(r"\s*([A-Za-z0-9./_-]+)\s*(==|=|!=)\s*([A-Za-z0-9._-]*)\s*", term)
        if not found:
            raise refused(400, f"unable to parse requirement: found '{term}'")
        terms.append(found.groups())
    return lambda pod: all(
        (pod["metadata"]["labels"].get(name) == value) == (operator != "!=") for name, operator, value in terms
    )


class Kubernetes(StandIn):
    def __init__(self):
        super().__init__()
        self.version = 1000
        self.oldest = 1000
        self.pods = {}
        self.events = []
        self.tokens = {}
        self.pages_gone = False
        self.gone_by_status = False
        self.faults = []
        self.how = "whole"
        self.epoch = 0

    def answer(self, request, path, query, body):
        for name in query:
            if name not in QUERY_VALUES:
                raise refused(400, f"unknown query value {name}")
        if request.command != "GET" or len(path) != 5 or path[:3] != ["api", "v1", "namespaces"] or path[4] != "pods":
            raise refused(404, "the server could not find the requested resource")
        namespace = path[3]
        is_watch = query.get("watch") in ("true", "1")
        self.authorize(request, namespace, "watch" if is_watch else "list")
        if self.faults:
            raise refused(self.faults.pop(0), "as it was told")
        selects = selector(query.get("labelSelector", ""))
        matches = lambda pod: pod["metadata"]["namespace"] == namespace and selects(pod)
        if is_watch:
            self.watch(request, query, matches)
        else:
            self.list(request, query, matches)

    def authorize(self, request, namespace, verb):
        kind, _, token = (request.headers.get("authorization") or "").partition(" ")
        allowed = self.tokens.get(token) if kind == "Bearer" else None
        if allowed is None:
            raise refused(401, "Unauthorized")
        if f"{namespace}/{verb}" not in allowed:
            user = f"system:serviceaccount:{namespace}:gate"
            raise refused(403, f'pods is forbidden: User "{user}" cannot {verb} resource "pods" in API group "" '
                               f'in the namespace "{namespace}"')

    def list(self, request, query, matches):
        limit, token = number(query, "limit"), query.get("continue")
        if token and query.get("resourceVersion"):
            raise refused(400, "specifying resource version is not allowed when using continue")
        with self.changed:
            if token:
                if self.pages_gone:
                    raise refused(410, "The provided continue parameter is too old to display a consistent list result.")
                try:
                    version, after = json.loads(base64.urlsafe_b64decode(token))
                except ValueError:
                    raise refused(400, "continue key is not valid")
            else:
                version, after = self.version, ""
            pods = [pod for name, pod in sorted(self.pods.items()) if name > after and matches(pod)]
            metadata = {"resourceVersion": str(version)}
            if limit and len(pods) > limit:
                pods = pods[:limit]
                last = pods[-1]["metadata"]["name"]
                metadata["continue"] = base64.urlsafe_b64encode(json.dumps([version, last]).encode()).decode()
            # Items of a list carry no kind of their own.
            items = [{name: pod[name] for name in ("metadata", "spec", "status")} for pod in pods]
        request.send(200, {"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items})

    def watch(self, request, query, matches):
        if not re.fullmatch(r"\d+", query.get("resourceVersion", "")):
            raise refused(400, f'Invalid value: "{query.get("resourceVersion")}"')
        seen, seconds = int(query["resourceVersion"]), number(query, "timeoutSeconds") or 1800
        bookmarks = query.get("allowWatchBookmarks") in ("true", "1")
        gone = status(410, f"too old resource version: {seen} ({self.oldest})")
        is_gone = seen < self.oldest
        if is_gone and self.gone_by_status:
            raise Refused(410, gone)
        request.send_response(200)
        request.send_header("content-type", "application/json")
        request.send_header("transfer-encoding", "chunked")
        request.end_headers()
        self.stream(request, seen, seconds, bookmarks, matches, gone if is_gone else None)

    def stream(self, request, seen, seconds, bookmarks, matches, gone):
        until, server, epoch = time.monotonic() + seconds, self.server, self.epoch
        if gone:
            self.write(request, [{"type": "ERROR", "object": gone}])
        bookmark = 0
        while not gone:
            with self.changed:
                news = lambda: any(version > seen for version, *_ in self.events) or self.bookmark > bookmark
                while not news() or self.how == "silent":
                    left = until - time.monotonic()
                    if self.server is not server or self.epoch != epoch or left <= 0:
                        break
                    self.changed.wait(left)
                if self.server is not server:
                    return
                if self.how == "silent":
                    # As through a balancer that forgot the connection: nothing, not even an end.
                    self.changed.wait_for(lambda: self.how != "silent" or self.server is not server)
                    return request.connection.shutdown(socket.SHUT_RDWR)
                events = []
                for version, kind, pod, before in self.events:
                    if version > seen:
                        seen = version
                        now, was = kind != "DELETED" and matches(pod), before is not None and matches(before)
                        if now or was:
                            events.append({"type": "DELETED" if not now else "ADDED" if not was else "MODIFIED", "object": pod})
                if bookmarks and (self.bookmark > bookmark or time.monotonic() >= until):
                    bookmark, seen = self.bookmark, max(seen, self.version)
                    nothing = {"kind": "Pod", "apiVersion": "v1", "spec": {"containers": None}, "status": {},
                               "metadata": {"creationTimestamp": None, "resourceVersion": str(self.version)}}
                    if self.how != "no-bookmarks":
                        events.append({"type": "BOOKMARK", "object": nothing})
            if self.epoch != epoch:
                break
            if not self.write(request, events):
                return
            if time.monotonic() >= until:
                break
        request.wfile.write(b"0\r\n\r\n")

    bookmark = 0

    def write(self, request, events):
        """Whether there may be more."""
        text = b"".join(json.dumps(event).encode() + b"\n" for event in events)
        if self.how == "twice":
            text += text
        if self.how == "cut" and text:
            self.how = "whole"
            half = text[: len(text) // 2]
            request.wfile.write(b"%x\r\n%s" % (len(text), half))
            request.wfile.flush()
            request.connection.shutdown(socket.SHUT_RDWR)
            return False
        step = 7 if self.how == "pieces" else len(text) or 1
        for at in range(0, len(text), step):
            piece = text[at:at + step]
            request.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            request.wfile.flush()
        return True

    # Commands.

    def happened(self, kind, pod, before):
        self.version += 1
        if pod:
            pod = json.loads(json.dumps(pod))
            pod["metadata"]["resourceVersion"] = str(self.version)
            name = pod["metadata"]["name"]
            if kind == "DELETED":
                self.pods.pop(name)
            else:
                self.pods[name] = pod
            self.events.append((self.version, kind, pod, before))
        self.changed.notify_all()

    def do_put(self, name, ips, ready=True, labels=None, port=None, phase="Running", namespace="default", uid=None):
        with self.changed:
            before = self.pods.get(name)
            ports = [{"containerPort": 8080, "name": "http", "protocol": "TCP"}]
            if port:
                ports.append({"containerPort": port, "name": "gossip", "protocol": "TCP"})
            condition = {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": None}
            self.happened("MODIFIED" if before else "ADDED", {
                "kind": "Pod", "apiVersion": "v1",
                "metadata": {"name": name, "namespace": namespace, "uid": uid or "uid-" + name,
                             "labels": {"app": "gate"} if labels is None else labels,
                             "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"containers": [{"name": "gate", "image": "gate", "ports": ports}]},
                "status": {"phase": phase, "podIP": ips[0], "podIPs": [{"ip": ip} for ip in ips], "conditions": [condition]},
            }, before)

    def do_delete(self, name):
        """First it is about to end, then it is gone."""
        with self.changed:
            before = self.pods[name]
            ending = json.loads(json.dumps(before))
            ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:01:00Z"
            self.happened("MODIFIED", ending, before)
            self.happened("DELETED", ending, ending)

    def do_crowd(self, count):
        for at in range(count):
            self.do_put(f"crowd-{at:04}", ["10.9.0.1"], ready=False)

    def do_bookmark(self):
        """Other things happened; whoever wants to know up to where is told."""
        with self.changed:
            self.happened("MODIFIED", None, None)
            self.bookmark += 1

    def do_compact(self, by_status=False, watches_too=True, version=None):
        """Forgets what happened, and ends the watches that would have told it."""
        with self.changed:
            self.version = self.version if version is None else version
            self.oldest, self.events, self.gone_by_status = self.version, [], by_status
            self.epoch += 1 if watches_too else 0
            self.changed.notify_all()

    def do_end_watches(self):
        with self.changed:
            self.epoch += 1
            self.changed.notify_all()

    def do_tokens(self, tokens):
        self.tokens = tokens

    def do_how(self, how):
        with self.changed:
            self.how = how
            self.changed.notify_all()

    def do_faults(self, faults):
        self.faults = faults

    def do_pages_gone(self, gone):
        self.pages_gone = gone


if __name__ == "__main__":
    Kubernetes().run()
