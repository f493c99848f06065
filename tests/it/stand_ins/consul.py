"""A stand-in for a Consul agent (1.10) and the catalogue behind it, since no Consul can be
installed where the tests run. It follows the public HTTP API for what a node asks: registering,
deregistering, the agent's health of one instance, passing instances by blocking query. Checks are
real: it connects to the registered TCP address.

It is stricter than Consul: unknown query values, unknown members and bodies of another type are
refused. It is as nasty: indexes go backwards, agents forget, tokens see less than there is without
a word, answers break off.

What it does not do: gossip and Raft (there is one agent, which is always the leader), other kinds
of checks, anti-entropy (the catalogue follows at once), namespaces, the reaper's 30 s. `minute`
says how long the minute is after which a critical instance is deregistered.
"""

import json
import random
import re
import socket
import threading
import time

from serving import Refused, StandIn

UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
REGISTRATION = {"ID", "Name", "Address", "Port", "Tags", "Meta", "Check", "Checks", "EnableTagOverride", "Weights"}
CHECK = {"CheckID", "Name", "TCP", "Interval", "Timeout", "DeregisterCriticalServiceAfter", "Status", "Notes"}
QUERY_VALUES = {"passing", "index", "wait", "dc", "replace-existing-checks"}


def duration(text, what):
    """As Go reads them: numbers with units, one after the other."""
    if not re.fullmatch(r"(\d+(\.\d+)?(ns|us|ms|s|m|h))+", text):
        raise Refused(400, f"Invalid {what}")
    return sum(float(n) * UNITS[unit] for n, _, unit in re.findall(r"(\d+(\.\d+)?)(ns|us|ms|s|m|h)", text))


def boolean(text, what):
    if text not in ("", "1", "t", "T", "true", "TRUE", "True", "0", "f", "F", "false", "FALSE", "False"):
        raise Refused(400, f"Invalid value for ?{what}")
    return text in ("", "1", "t", "T", "true", "TRUE", "True")


def members(value, known, what):
    if not isinstance(value, dict):
        raise Refused(400, f"Request decode failed: {what} is no object")
    for name in value:
        if name not in known:
            raise Refused(400, f'Request decode failed: json: unknown field "{name}"')
    return value


class Consul(StandIn):
    def __init__(self):
        super().__init__()
        self.catalogue = {"dc1": {}}
        self.index = 20
        self.tokens = None
        self.minute = 60.0
        self.faults = []

    # What a request may do.

    def permissions(self, request):
        if self.tokens is None:
            return {"service:write", "service:read", "node:read"}
        token = request.headers.get("x-consul-token")
        if token is None:
            return set()
        if token not in self.tokens:
            raise Refused(403, "ACL not found")
        return set(self.tokens[token])

    def answer(self, request, path, query, body):
        for name in query:
            if name not in QUERY_VALUES:
                raise Refused(400, f"Invalid query value {name}")
        allowed = self.permissions(request)
        match path:
            case ["v1", "agent", "service", "register"]:
                self.expect(request, "PUT")
                boolean(query.get("replace-existing-checks", "0"), "replace-existing-checks")
                self.register(json.loads(body or "null"), allowed)
                request.send(200, "")
            case ["v1", "agent", "service", "deregister", id]:
                self.expect(request, "PUT")
                if "service:write" not in allowed:
                    raise Refused(403, "Permission denied")
                with self.changed:
                    if id not in self.catalogue["dc1"]:
                        raise Refused(500, f'Unknown service ID "{id}". Ensure that the service ID is passed, not the service name.')
                    self.forget(id)
                request.send(200, "")
            case ["v1", "agent", "health", "service", "id", id]:
                self.expect(request, "GET")
                if "service:read" not in allowed:
                    raise Refused(403, "Permission denied")
                instance = self.catalogue["dc1"].get(id)
                if instance is None:
                    raise Refused(404, f"ServiceId {id} not found")
                checks = [check(instance)]
                answer = {"AggregatedStatus": instance["status"], "Service": service(instance), "Checks": checks}
                request.send({"passing": 200, "warning": 429, "critical": 503}[instance["status"]], answer)
            case ["v1", "health", "service", name]:
                self.expect(request, "GET")
                self.health(request, name, query, allowed)
            case _:
                raise Refused(404, "404 page not found")

    def expect(self, request, method):
        if request.command != method:
            raise Refused(405, f"method {request.command} not allowed")

    # Registrations and their checks.

    def register(self, value, allowed):
        value = members(value, REGISTRATION, "registration")
        if not value.get("Name"):
            raise Refused(400, "Missing service name")
        if not isinstance(value.get("Port", 0), int) or not isinstance(value.get("Address", ""), str):
            raise Refused(400, "Request decode failed: wrong type")
        checked = members(value.get("Check", {}), CHECK, "check")
        seconds = {
            name: duration(checked[name], name)
            for name in ("Interval", "Timeout", "DeregisterCriticalServiceAfter") if name in checked
        }
        if "TCP" in checked and seconds.get("Interval", 0) <= 0:
            raise Refused(400, "Invalid check: Interval must be > 0 for Script, HTTP, or TCP checks")
        if "service:write" not in allowed:
            raise Refused(403, f'Permission denied: lacks permission "service:write" on "{value["Name"]}"')
        instance = {
            "ID": value.get("ID") or value["Name"], "Name": value["Name"], "Address": value.get("Address", ""),
            "Port": value.get("Port", 0), "node": "127.0.0.1", "tcp": checked.get("TCP"), "seconds": seconds,
            "status": "critical" if "TCP" in checked else "passing", "output": "",
        }
        with self.changed:
            self.put("dc1", instance)
        if instance["tcp"]:
            threading.Thread(target=self.watch_over, args=(instance,), daemon=True).start()

    def watch_over(self, instance):
        """Tries the address as often as it was asked for, until the instance is another one."""
        seconds = instance["seconds"]
        host, port = instance["tcp"].rsplit(":", 1)
        interval = max(seconds["Interval"], 1)
        time.sleep(random.uniform(0, interval))
        failing_since = None
        while True:
            try:
                socket.create_connection((host.strip("[]"), int(port)), seconds.get("Timeout", 10)).close()
                status, output, failing_since = "passing", f"TCP connect {instance['tcp']}: Success", None
            except OSError as error:
                status, output = "critical", f"dial tcp {instance['tcp']}: connect: {error}"
                failing_since = failing_since or time.monotonic()
            with self.changed:
                if self.catalogue["dc1"].get(instance["ID"]) is not instance:
                    return
                if status != instance["status"] or (not instance["output"]):
                    instance["status"], instance["output"] = status, output
                    self.moved()
                after = seconds.get("DeregisterCriticalServiceAfter")
                if after and failing_since and time.monotonic() - failing_since > max(after / 60, 1) * self.minute:
                    self.forget(instance["ID"])
                    return
            time.sleep(interval)

    def put(self, dc, instance):
        self.catalogue.setdefault(dc, {})[instance["ID"]] = instance
        self.moved()

    def forget(self, id):
        for instances in self.catalogue.values():
            instances.pop(id, None)
        self.moved()

    def moved(self):
        self.index += 1
        self.changed.notify_all()

    # Questions.

    def health(self, request, name, query, allowed):
        passing = "passing" in query and boolean(query["passing"], "passing")
        dc = query.get("dc", "dc1")
        if not re.fullmatch(r"\d*", query.get("index", "")):
            raise Refused(400, "Invalid index")
        index = int(query.get("index") or 0)
        wait = min(duration(query["wait"], "wait time") if "wait" in query else 300, 600)
        server = self.server
        with self.changed:
            if dc not in self.catalogue:
                raise Refused(500, "No path to datacenter")
            if index > 0:
                until = time.monotonic() + wait + random.uniform(0, wait / 16)
                while self.index <= index and self.server is server and time.monotonic() < until:
                    self.changed.wait(until - time.monotonic())
            found = [
                entry(instance) for instance in self.catalogue.get(dc, {}).values()
                if instance["Name"] == name and (not passing or instance["status"] == "passing")
                and {"service:read", "node:read"} <= allowed
            ]
            headers = [("X-Consul-Index", str(self.index)), ("X-Consul-Knownleader", "true"), ("X-Consul-Lastcontact", "0")]
            fault = self.faults.pop(0) if self.faults else None
        match fault:
            case None:
                request.send(200, found, headers)
            case "error":
                request.send(500, "rpc error making call: No cluster leader")
            case "garbage":
                request.send(200, "<html>", headers)
            case "no-index":
                request.send(200, found)
            case "cut":
                request.send_response(200)
                request.send_header("content-length", "100000")
                request.end_headers()
                request.wfile.write(b'[{"Node": {"Addr')
                request.wfile.flush()
                request.connection.shutdown(socket.SHUT_RDWR)

    # Commands.

    def do_tokens(self, tokens):
        self.tokens = tokens

    def do_minute(self, seconds):
        self.minute = seconds

    def do_faults(self, faults):
        self.faults = faults
        with self.changed:
            self.moved()

    def do_forget(self, id=None, index=None):
        """What an agent that keeps nothing forgets when it is started anew."""
        with self.changed:
            if id:
                self.forget(id)
            else:
                self.catalogue = {dc: {} for dc in self.catalogue}
                self.moved()
            if index is not None:
                self.index = index
                self.changed.notify_all()

    def do_put(self, id, name, address, port, dc="dc1", node="127.0.0.1", status="passing"):
        with self.changed:
            self.put(dc, {
                "ID": id, "Name": name, "Address": address, "Port": port, "node": node, "tcp": None, "seconds": {},
                "status": status, "output": "",
            })

    def do_instances(self, dc="dc1"):
        with self.changed:
            return {id: instance["status"] for id, instance in self.catalogue.get(dc, {}).items()}

    def do_registration(self, id):
        with self.changed:
            instance = self.catalogue["dc1"].get(id)
            return instance and {name: instance[name] for name in ("Name", "Address", "Port", "tcp", "seconds")}


def service(instance):
    return {"ID": instance["ID"], "Service": instance["Name"], "Address": instance["Address"],
            "Port": instance["Port"], "Tags": [], "Meta": {}, "Weights": {"Passing": 1, "Warning": 1}}


def check(instance):
    return {"Node": "agent-1", "CheckID": "service:" + instance["ID"], "Name": "gossip port", "Notes": "",
            "Status": instance["status"], "Output": instance["output"], "ServiceID": instance["ID"],
            "ServiceName": instance["Name"], "Type": "tcp"}


def entry(instance):
    node = {"ID": "", "Node": "agent-1", "Address": instance["node"], "Datacenter": "dc1", "TaggedAddresses": None}
    return {"Node": node, "Service": service(instance), "Checks": [check(instance)]}


if __name__ == "__main__":
    Consul().run()
