# -*- coding: utf-8 -*-
"""`wstest` with the changes a scripted run needs. Runs on Python 2.7.

* Every listening socket is bound to 127.0.0.1 (wstest binds all interfaces).
* The reports are also written when the process is asked to stop (SIGTERM), so
  that a run cut short still leaves an index.json.
* WSTEST_HTML=0 in the environment leaves the HTML pages out.
* WSTEST_PATIENCE=5 multiplies the seconds a case waits for the peer before it
  gives up (1 s for most), for a machine that is busy with other things.

The command line is that of wstest: wstest_local.py -m MODE -s SPEC
"""
import os

import autobahntestsuite.choosereactor  # noqa: must come before the reactor
from twisted.internet import reactor

from autobahntestsuite import fuzzing, wstest

HTML = os.environ.get('WSTEST_HTML', '1') != '0'
PATIENCE = float(os.environ.get('WSTEST_PATIENCE', '1'))


def listen_on_loopback():
    listen = reactor.listenTCP

    def listen_loopback(port, factory, backlog=50, interface=''):
        return listen(port, factory, backlog, interface or '127.0.0.1')

    reactor.listenTCP = listen_loopback


def write_reports_when_stopped():
    factories = []
    written = []
    create_reports = fuzzing.FuzzingFactory.createReports

    def results(factory):
        return sum(len(cases) for cases in factory.agents.values())

    def remembered(init):
        def __init__(self, spec, debug=False):
            factories.append(self)
            init(self, spec, debug)
        return __init__

    def create(self, produceHtml=True, produceJson=True):
        written.append(results(self))
        create_reports(self, produceHtml and HTML, produceJson)

    def at_shutdown():
        for factory in factories:
            if results(factory) not in [0] + written[-1:]:
                factory.createReports()

    fuzzing.FuzzingFactory.createReports = create
    for cls in (fuzzing.FuzzingClientFactory, fuzzing.FuzzingServerFactory):
        cls.__init__ = remembered(cls.__init__.__func__)
    reactor.addSystemEventTrigger('before', 'shutdown', at_shutdown)


def wait_longer():
    def patient(method):
        return lambda self, delay: method(self, delay * PATIENCE)

    for name in ('killAfter', 'closeAfter'):
        method = getattr(fuzzing.FuzzingProtocol, name).__func__
        setattr(fuzzing.FuzzingProtocol, name, patient(method))


listen_on_loopback()
write_reports_when_stopped()
if PATIENCE != 1:
    wait_longer()
wstest.run()
