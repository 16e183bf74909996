"""Where the broker is, and names of this run's own. All else is as in the tutorials."""
import os

import pika


def connect():
    return pika.BlockingConnection(pika.URLParameters(os.environ['AMQP_URL']))


def named(name):
    return os.environ['PREFIX'] + name
