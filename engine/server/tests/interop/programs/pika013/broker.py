"""Where the broker is, and names of this run's own. All else is as in the tutorials."""
import collections
import collections.abc
import os

collections.Callable = collections.abc.Callable  # pika 0.13.1 is older than Python 3.10

import pika


def connect():
    return pika.BlockingConnection(pika.URLParameters(os.environ['AMQP_URL']))


def named(name):
    return os.environ['PREFIX'] + name
