"""The services stand on a real store."""

from tests.store.stores import house as house
from tests.store.stores import migrated_file as migrated_file
from tests.store.stores import postgres as postgres
from tests.store.stores import store as store
from tests.store.stores import store_url as store_url
