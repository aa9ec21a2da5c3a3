"""A real browser for the tests: headless Chromium, spoken to through a pipe in its own protocol.

Nothing but the standard library: `--remote-debugging-pipe` takes commands on file descriptor 3 and answers on 4, as
JSON with a zero byte at the end. https://chromedevtools.github.io/devtools-protocol/
"""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time

NAMES = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome", "chrome")
KEYS = {"Enter": 13, "Escape": 27, "PageUp": 33, "PageDown": 34, "End": 35, "Home": 36, "Tab": 9}
KEYS |= {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}


def path():
    """Where a Chromium is; None without one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


# The pipes become the descriptors that Chromium reads, in a process of its own, which then becomes Chromium.
_START = """
import os, sys
read, write, command, *options = sys.argv[1:]
os.dup2(int(read), 3)
os.dup2(int(write), 4)
os.execv(command, [command, *options])
"""


class Browser:
    """One window."""

    def __init__(self, command, read, write):
        self.command, self.read, self.write = command, read, write
        self.buffer, self.count, self.session, self.events = b"", 0, None, []

    def receive(self, seconds=30):
        until = time.monotonic() + seconds
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.read], [], [], max(0, until - time.monotonic()))
            if not ready or not (data := os.read(self.read, 1 << 20)):
                raise TimeoutError("the browser says nothing")
            self.buffer += data
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def send(self, method, **params):
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.count:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def open(self, file, *, width=1280, height=900, dark=False, hash_="", phone=False):
        """The file, or the page of that address, in a new window of that size."""
        self.session = None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.events = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.resize(width, height, phone=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.send("Page.navigate", url=f"{file if isinstance(file, str) else file.resolve().as_uri()}{hash_}")
        self.wait("document.readyState === 'complete'")
        self.settle()

    def resize(self, width, height, *, phone=False):
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)

    def evaluate(self, code):
        found = self.send("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, code, seconds=15):
        until = time.monotonic() + seconds
        while not self.evaluate(code):
            assert time.monotonic() < until, f"never came true: {code}"
            time.sleep(0.02)

    def settle(self):
        """Until what was asked for is drawn."""
        frame = "new Promise((done) => requestAnimationFrame(() => setTimeout(done)))"
        for _ in range(2):
            self.evaluate(frame)

    def place(self, selector, across=0.5, down=0.5):
        """A point in an element, scrolled into view."""
        return self.evaluate(
            f"""(() => {{
              const element = document.querySelector({json.dumps(selector)});
              element.scrollIntoView({{ block: "center" }});
              const box = element.getBoundingClientRect();
              return [box.left + {across} * box.width, box.top + {down} * box.height];
            }})()"""
        )

    def mouse(self, kind, x, y, **more):
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def hover(self, selector):
        self.mouse("mouseMoved", *self.place(selector))
        self.settle()

    def click(self, selector, across=0.5, down=0.5):
        x, y = self.place(selector, across, down)
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.mouse(kind, x, y, **({} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}))
        self.settle()

    def key(self, name):
        """A key by its name, or a letter."""
        code = KEYS.get(name)
        given = {"key": name, "windowsVirtualKeyCode": code or ord(name.upper())}
        text = {} if code else {"text": name}
        if name == "Enter":
            text = {"text": "\r"}
        self.send("Input.dispatchKeyEvent", type="keyDown", **given, **text)
        self.send("Input.dispatchKeyEvent", type="keyUp", **given)
        self.settle()

    def attach(self, selector, file):
        """A file, to the field that takes one."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(file)])
        self.settle()

    def type(self, text):
        self.send("Input.insertText", text=text)
        self.settle()

    def screenshot(self, file, *, full=False):
        data = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=full)["data"]
        file.write_bytes(base64.b64decode(data))

    def complaints(self):
        """Errors, what the policy refused, and requests that are none of the file itself."""
        self.send("Runtime.enable")  # what came meanwhile is read with the answer
        found = []
        for event in self.events:
            params = event.get("params", {})
            if event.get("method") == "Runtime.exceptionThrown":
                found.append(params["exceptionDetails"])
            elif event.get("method") == "Log.entryAdded":
                found.append(params["entry"]["text"])
            elif event.get("method") == "Network.requestWillBeSent":
                url = params["request"]["url"]
                if not url.startswith(("data:", "file:")):
                    found.append(url)
        return found


@contextlib.contextmanager
def browser():
    """A browser that is closed at the end."""
    command = path()
    ours_read, theirs_write = os.pipe()
    theirs_read, ours_write = os.pipe()
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (theirs_read, theirs_write)]
    with tempfile.TemporaryDirectory(prefix="jaxcam-browser-", ignore_cleanup_errors=True) as profile:
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        options += ["--remote-debugging-pipe", f"--user-data-dir={profile}", "--hide-scrollbars"]
        process = subprocess.Popen(
            [sys.executable, "-c", _START, *map(str, high), command, *options],
            pass_fds=high,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for fd in (*high, theirs_read, theirs_write):
            os.close(fd)
        try:
            yield Browser(command, ours_read, ours_write)
        finally:
            os.close(ours_write)
            os.close(ours_read)
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
