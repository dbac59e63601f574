"""What several tests of networks need."""

import pytest

from darkroom.nets.native_products import ProductKernel, find_product_kernel


@pytest.fixture(scope="session")
def products(tmp_path_factory: pytest.TempPathFactory) -> ProductKernel:
    found = find_product_kernel(tmp_path_factory.mktemp("kernels"))
    if found is None:
        pytest.skip("no AMX or no C compiler here")
    return found
