"""The steps of the job, one public function each, and the run that does them all."""
