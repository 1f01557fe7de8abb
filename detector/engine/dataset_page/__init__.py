"""The doctor's page: what is in a data set, what is amiss, and what the detector will make of it."""

from detector.engine.dataset_page.page import DatasetPage, write_dataset_page

__all__ = ["DatasetPage", "write_dataset_page"]
