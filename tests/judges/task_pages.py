"""Pages of tasks with answers, as CamCOPS makes them of its own test data: run by pytest with CamCOPS's conftest as a plugin.
They go into the directory PAGES, and what is seen in them is printed as JSON."""

import io
import json
import os

from camcops_server.cc_modules.cc_constants import PDF_ENGINE
from camcops_server.cc_modules.cc_simpleobjects import IdNumReference
from camcops_server.cc_modules.cc_taskfilter import TaskFilter
from camcops_server.cc_modules.cc_taskindex import PatientIdNumIndexEntry, TaskIndexEntry
from camcops_server.cc_modules.cc_testfactories import NHSPatientIdNumFactory, PatientFactory
from camcops_server.cc_modules.cc_tracker import Tracker
from camcops_server.cc_modules.cc_unittest import BasicDatabaseTestCase
from camcops_server.tasks.tests import factories
from pendulum import datetime, now
from pypdf import PdfReader

HOME = os.environ["PAGES"]


def fonts(page):
    for font in page["/Resources"]["/Font"].values():
        below = font.get_object().get("/DescendantFonts")
        descriptor = (below[0].get_object() if below else font.get_object()).get("/FontDescriptor", {}).get_object()
        yield str(descriptor.get("/FontName")), any(f"/FontFile{kind}" in descriptor for kind in ("", "2", "3"))


class Pages(BasicDatabaseTestCase):
    seen = {}

    def keep(self, name, made):
        with open(f"{HOME}/{name}.pdf", "wb") as file:
            file.write(made)
        pages = PdfReader(io.BytesIO(made)).pages
        self.seen[name] = {
            "texts": [" ".join(page.extract_text().split()) for page in pages],
            "sizes": [[round(float(side)) for side in page.mediabox[2:]] for page in pages],
            "embedded": sorted({name for page in pages for name, is_embedded in fonts(page) if is_embedded}),
            "missing": sorted({name for page in pages for name, is_embedded in fonts(page) if not is_embedded}),
        }

    def test_pages(self):
        patient = PatientFactory(_group=self.group, forename="Zoë", surname="Łukasiewicz", address="12 Example Street")
        number = NHSPatientIdNumFactory(patient=patient)
        whose = {"_group": self.group, "patient": patient}
        answers = {f"q{n}": n % 4 for n in range(1, 11)}
        phq9 = factories.Phq9Factory(**whose, **answers)
        self.keep("phq9", phq9.get_pdf(self.req))
        answers = {f"frequency{n}": n % 4 + 1 for n in range(1, 43)}
        self.keep("cape42", factories.Cape42Factory(**whose, **answers).get_pdf(self.req))
        note = "<b>плохо</b> " + " ".join(f"word{n}" for n in range(2000))
        self.keep("note", factories.ProgressNoteFactory(**whose, location="Ward", note=note).get_pdf(self.req))
        for month in range(1, 8):
            answers = {f"q{n}": (n + month) % 4 for n in range(1, 11)}
            factories.Phq9Factory(**whose, when_created=datetime(2026, month, 3), **answers)
        PatientIdNumIndexEntry.index_idnum(number, self.dbsession)
        for task in self.dbsession.query(type(phq9)):
            TaskIndexEntry.index_task(task, self.dbsession, indexed_at_utc=now("UTC"))
        self.dbsession.commit()
        wanted = TaskFilter()
        wanted.idnum_criteria = [IdNumReference(which_idnum=number.which_idnum, idnum_value=number.idnum_value)]
        wanted.tasks_with_patient_only = True
        wanted.task_types = ["phq9"]
        self.keep("tracker", Tracker(self.req, wanted).get_pdf())
        with open(f"{HOME}/seen.json", "w") as file:
            json.dump({"engine": PDF_ENGINE, "documents": self.seen}, file)
