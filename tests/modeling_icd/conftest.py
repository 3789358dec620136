import multiprocessing

import pytest


@pytest.fixture(scope="session")
def context():
    """New processes that have the libraries at hand, and nothing of what other tests did."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["modeling_icd.training.run"])
    return context
