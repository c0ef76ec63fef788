"""The process that serves a page: Voila for this machine only, with a token, which says its address once it listens.

Run as `python -m bbqrec_lab.suite.page_server` with the options of Voila. The token is in `JUPYTER_TOKEN`: other users
of the machine can read command lines, but not the environment.
"""

import logging
import signal

from tornado.ioloop import IOLoop
from traitlets.config.application import LevelFormatter
from voila.app import Voila

from bbqrec_lab.escaping import printable
from bbqrec_lab.terminal import say

# A page of another site that gives its own name this address (DNS rebinding) sends that name as the host. Requests for
# it find nothing here. The origin of a websocket must equal its host, which the handlers check.
HOSTS = r"(127\.0\.0\.1|localhost|\[::1\])$"


class Printable(LevelFormatter):
    """Lines of the log without controls: a traceback of a kernel has colours, and can quote any text of the data."""

    def format(self, record: logging.LogRecord) -> str:
        """The whole record, with its traceback."""
        return printable(super().format(record))


class PageServer(Voila):
    """Voila with its handlers bound to the names of this machine."""

    _log_formatter_cls = Printable

    def init_handlers(self) -> list:
        """No handler for every host: `listen` adds them for `HOSTS`."""
        self.ours = super().init_handlers()
        return []

    def listen(self) -> None:
        """Serve until a signal; the address is told when the port is bound and the loop runs."""
        self.app.add_handlers(HOSTS, self.ours)
        IOLoop.current().add_callback(self._tell)
        super().listen()

    def _tell(self) -> None:
        address = f"http://127.0.0.1:{self.port}/?token={self.identity_provider.token}"
        say(f"{address} serves the page as soon as its content is computed; press Ctrl-C to stop")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the command too, which then ends this process
    PageServer.launch_instance()
